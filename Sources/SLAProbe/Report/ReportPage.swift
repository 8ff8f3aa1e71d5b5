/// `report.html`.
enum ReportPage {
    static func html(_ builder: ReportBuilder, _ document: ReportDocument) -> String {
        let seconds = document.to - document.from
        let probes = document.availability.read.probes + document.availability.write.probes
        let subtitle =
            "\(Words.time(builder.fromMicroseconds)) to \(Words.time(builder.toMicroseconds)) UTC"
            + " · \(Words.seconds(seconds)) · \(Words.count(probes)) probes from "
            + Page.escape(document.vantages.joined(separator: ", "))
        let body =
            tiles(builder, document)
            + Page.section("Availability", availability(document), note: availabilityNote(document))
            + Page.section(
                "Outages", ReportCharts.outageTimeline(builder) + outages(document),
                note:
                    "Times in which every probe of a region failed, for a client that may use any of its "
                    + "endpoints: from the due time of the first failure to that of the next success."
            )
            + Page.section(
                "Read latency", ReportCharts.latencyOverTime(builder, .read),
                note: "Linearizable reads, from the moment each was due.")
            + Page.section(
                "Write latency", ReportCharts.latencyOverTime(builder, .write),
                note: "Puts, from the moment each was due; each was then read back.")
            + Page.section("Distribution", ReportCharts.histogram(builder) + latency(document))
            + Page.section("Error budget", budget(document), note: budgetNote(document))
            + Page.section("Regions and endpoints", parts(document))
            + Page.section("How this was measured", method(document))
        return Page.html(title: "Polder SLA report", subtitle: subtitle, body: body)
    }

    private static func tiles(_ builder: ReportBuilder, _ document: ReportDocument) -> String {
        func availability(_ kind: String, _ a: ReportDocument.Availability) -> Page.Tile {
            Page.Tile(
                label: "\(kind) availability", value: a.text,
                note: "\(Words.count(a.failures)) of \(Words.count(a.probes)) failed",
                accent: a.failures == 0 ? kind.lowercased() : "bad")
        }
        func latency(_ kind: String, _ l: ReportDocument.Latency) -> Page.Tile {
            Page.Tile(
                label: "\(kind) latency, p99", value: Words.milliseconds(l.p99),
                note: "median \(Words.milliseconds(l.p50)), slowest \(Words.milliseconds(l.max))",
                accent: kind.lowercased())
        }
        let longest = document.outages.map(\.seconds).max() ?? 0
        return Page.tiles([
            availability("Read", document.availability.read),
            availability("Write", document.availability.write),
            latency("Read", document.latency.read), latency("Write", document.latency.write),
            Page.Tile(
                label: "Outages", value: "\(document.outages.count)",
                note: document.outages.isEmpty ? "none seen" : "longest \(Words.seconds(longest))",
                accent: document.outages.isEmpty ? "good" : "bad"),
        ])
    }

    private static func availabilityNote(_ document: ReportDocument) -> String {
        let a = document.availability
        let weakest = min(a.read.lowerBound95, a.write.lowerBound95)
        let nines = Nines.count(weakest)
        let objective = document.errorBudget.read.objective
        let proven = nines == 0 ? "less than one nine" : nines == 1 ? "one nine" : "\(nines) nines"
        return
            "This sample proves, at 95 % confidence, \(proven). Nothing here claims more. To prove \(Words.fixed(objective * 100, max(0, Nines.count(objective) - 2))) % takes "
            + "\(Words.count(document.errorBudget.read.probesToProve)) faultless probes of each kind."
    }

    private static func availability(_ document: ReportDocument) -> String {
        func row(_ name: String, _ a: ReportDocument.Availability) -> [String] {
            [
                name, a.text, "≥ " + bound(a), proven(a.hourly, a), proven(a.timeBased, a),
                Words.count(a.probes), Words.count(a.failures), failures(a),
            ]
        }
        return Page.table(
            [
                "", "availability", "95 % bound", "hourly, averaged", "by time", "probes", "failed",
                "as",
            ],
            [row("Reads", document.availability.read), row("Writes", document.availability.write)],
            numbers: [1, 2, 3, 4, 5, 6])
    }

    /// The other ways to count get no more nines than the sample has.
    private static func proven(_ ratio: Double, _ a: ReportDocument.Availability) -> String {
        guard a.probes > 0 else { return "not measured" }
        let supported = Nines.count(a.lowerBound95)
        if Nines.count(ratio) > supported { return "≥ " + bound(a) }
        return Nines.percent(ratio, decimals: max(1, supported), least: supported - 2)
    }

    private static func bound(_ a: ReportDocument.Availability) -> String {
        let supported = Nines.count(a.lowerBound95)
        return Nines.percent(a.lowerBound95, decimals: max(1, supported), least: supported - 2)
    }

    private static func failures(_ a: ReportDocument.Availability) -> String {
        let parts = Outcome.allCases.filter(\.isFailure).compactMap { outcome -> String? in
            guard let count = a.outcomes[outcome.name], count > 0 else { return nil }
            return "\(words(outcome)) \(count)"
        }
        return parts.isEmpty ? "–" : parts.joined(separator: ", ")
    }

    private static func words(_ outcome: Outcome) -> String {
        switch outcome {
        case .ok: "good"
        case .timeout: "timeout"
        case .unavailable: "unavailable"
        case .wrongAnswer: "wrong answer"
        case .staleRead: "stale read"
        case .refused: "refused"
        }
    }

    private static func outages(_ document: ReportDocument) -> String {
        guard !document.outages.isEmpty else { return "<p>None.</p>" }
        let shown = document.outages.sorted { $0.seconds > $1.seconds }.prefix(50)
        let table = Page.table(
            ["start (UTC)", "lasted", "region", "kind", "seen from", "failed probes"],
            shown.map {
                [
                    Words.time(UInt64($0.start * 1e6)),
                    Words.seconds($0.seconds) + ($0.isOver ? "" : ", not over"), $0.region, $0.kind,
                    $0.vantage, Words.count($0.failures),
                ]
            }, numbers: [1, 5])
        let rest = document.outages.count - shown.count
        return table
            + (rest > 0 ? "<p class=\"note\">The longest 50; \(rest) more in report.json.</p>" : "")
    }

    private static func latency(_ document: ReportDocument) -> String {
        func row(_ name: String, _ l: ReportDocument.Latency) -> [String] {
            [name] + [l.p50, l.p90, l.p95, l.p99, l.p999, l.max, l.mean].map(Words.milliseconds)
        }
        return Page.table(
            ["", "p50", "p90", "p95", "p99", "p99.9", "slowest", "mean"],
            [row("Reads", document.latency.read), row("Writes", document.latency.write)],
            numbers: [1, 2, 3, 4, 5, 6, 7])
    }

    private static func budgetNote(_ document: ReportDocument) -> String {
        let objective = document.errorBudget.read.objective
        return
            "Objective \(Words.fixed(objective * 100, max(0, Nines.count(objective) - 2))) %. A burn rate of 1 "
            + "spends exactly the budget; 14.4 over an hour spends a month's in two days."
    }

    private static func budget(_ document: ReportDocument) -> String {
        func row(_ name: String, _ b: ReportDocument.Budget) -> [String] {
            [
                name, Words.fixed(b.allowedFailures, b.allowedFailures < 10 ? 2 : 0),
                "\(b.failures)",
                b.remaining < 0 ? "overspent" : Words.fixed(b.remaining * 100, 0) + " %",
                Words.fixed(b.burnRateLastHour, 1), Words.fixed(b.burnRateLast6Hours, 1),
                Words.fixed(b.burnRateLastDay, 1),
            ]
        }
        return Page.table(
            ["", "failures allowed", "failed", "left", "burn rate 1 h", "6 h", "24 h"],
            [row("Reads", document.errorBudget.read), row("Writes", document.errorBudget.write)],
            numbers: [1, 2, 3, 4, 5, 6])
    }

    private static func parts(_ document: ReportDocument) -> String {
        func rows(_ kind: String, _ parts: [String: ReportDocument.Part]) -> [[String]] {
            parts.sorted { $0.key < $1.key }.map { name, part in
                let a = part.availability
                return [
                    "\(kind) \(name)", a.read.text, a.write.text,
                    Words.count(a.read.failures + a.write.failures),
                    Words.milliseconds(part.latency.read.p50),
                    Words.milliseconds(part.latency.read.p99),
                    Words.milliseconds(part.latency.write.p50),
                    Words.milliseconds(part.latency.write.p99),
                ]
            }
        }
        return Page.table(
            ["", "reads", "writes", "failed", "read p50", "read p99", "write p50", "write p99"],
            rows("region", document.regions) + rows("", document.endpoints),
            numbers: [1, 2, 3, 4, 5, 6, 7])
    }

    private static func method(_ document: ReportDocument) -> String {
        let timeouts = document.timeoutMilliseconds.map { "\($0) ms" }.joined(separator: ", ")
        var text = """
            <p class="note">Open loop: each probe is due on a clock, whatever became of those before it, and its \
            latency counts from then. No answer within \(timeouts) is a failure. Reads are linearizable; a read that \
            misses a write acknowledged before it began counts as stale, an answer that was never written as wrong. \
            Regions: a client that asks the next endpoint when one fails or is slow, each at most once. Endpoints: \
            every single attempt. Latency percentiles are those of good answers; failures are in the availability. \
            “Hourly, averaged” is how cloud SLAs count: the error rate of each hour, averaged. Bounds are \
            Clopper and Pearson's, one-sided.</p>
            """
        if document.damagedLines > 0 {
            text +=
                "<p class=\"note\">\(document.damagedLines) damaged lines of the log were left out.</p>"
        }
        return text
    }
}
