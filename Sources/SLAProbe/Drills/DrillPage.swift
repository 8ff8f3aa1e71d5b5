import Primitives

/// `drill.html`.
enum DrillPage {
    static func html(_ d: DrillDocument, _ evidence: [DrillRun.Evidence]) -> String {
        let subtitle =
            "\(Words.time(UInt64(d.startedAt * 1e6))) UTC · \(Words.fixed(d.rate, 0)) operations a "
            + "second" + (d.victim.map { " · victim \(Page.escape($0))" } ?? "")
        var body = tiles(d)
        body += Page.section("Hypothesis", "<p>\(Page.escape(d.hypothesis))</p>" + findings(d))
        body += Page.section("What happened", phases(d))
        for part in evidence {
            let place = evidence.count > 1 ? " in \(part.region)" : ""
            body += Page.section(
                "Around the fault\(place)", DrillCharts.aroundFault(d, part),
                note: "Successes in each 10 ms. A gap in the bars is a gap in the service.")
            body += Page.section(
                "Slowest operations\(place)", DrillCharts.latency(d, part),
                note: "From the moment each operation was due, in steps of 100 ms.")
        }
        body += Page.section("Figures", figures(d))
        return Page.html(title: "Drill: \(d.name)", subtitle: subtitle, body: body)
    }

    private static func tiles(_ d: DrillDocument) -> String {
        func tile(_ label: String, _ value: String, _ note: String, _ isGood: Bool?) -> Page.Tile {
            let accent = isGood.map { $0 ? "good" : "bad" } ?? "plain"
            return Page.Tile(label: label, value: value, note: note, accent: accent)
        }
        var tiles = [
            tile("Verdict", d.verdict, d.name, d.verdict == "PASS"),
            tile(
                "Longest gap", Words.milliseconds(d.longestGapMs),
                "budget \(Words.milliseconds(d.budgetGapMs)); "
                    + "\(Words.milliseconds(d.baselineGapMs)) before the fault",
                d.longestGapMs <= d.budgetGapMs),
            tile(
                "Failed operations", "\(d.errors)", "\(d.errorsAllowed) allowed",
                d.errors <= d.errorsAllowed),
            tile(
                "Lost writes", "\(d.lostWrites)",
                "of \(d.regions.reduce(0) { $0 + $1.acknowledgedWrites }) acknowledged",
                d.lostWrites == 0),
            tile(
                "Linearizable", d.linearizable.map { $0 ? "yes" : "no" } ?? "not known",
                "Wing and Gong's search, key by key", d.linearizable == true),
        ]
        if let converged = d.converged {
            let note = d.convergenceSeconds.map { "\(Words.seconds($0)) after the link was mended" }
            tiles.append(tile("Converged", converged ? "yes" : "no", note ?? "", converged))
        }
        if let conflicts = d.conflicts {
            tiles.append(
                tile("Conflicts recorded", "\(conflicts)", "losers in the feed", conflicts > 0))
        }
        if let sync = d.slowestSyncMs {
            let slowest = "≤ \(Words.milliseconds(sync))"
            tiles.append(tile("Slowest sync", slowest, "of the nodes' logs, from the baseline on", nil))
        }
        if let stolen = d.stolenMs {
            let what = "of processor time, around the longest gap"
            tiles.append(tile("Withheld by the host", Words.milliseconds(stolen), what, nil))
        }
        if let seconds = d.recoverySeconds {
            tiles.append(tile("Back in service", Words.seconds(seconds), "after the restart", nil))
        }
        return Page.tiles(tiles)
    }

    private static func findings(_ d: DrillDocument) -> String {
        guard !d.findings.isEmpty else {
            return "<p><span class=\"verdict PASS\">PASS</span> Everything claimed was seen.</p>"
        }
        return "<p><span class=\"verdict FAIL\">FAIL</span></p><ul>"
            + d.findings.map { "<li>\(Page.escape($0))</li>" }.joined() + "</ul>"
    }

    private static func phases(_ d: DrillDocument) -> String {
        Page.table(
            ["at", ""], d.phases.map { [Words.fixed($0.atSeconds, 2) + " s", $0.name] }, numbers: []
        )
    }

    private static func figures(_ d: DrillDocument) -> String {
        func failed(_ r: DrillDocument.RegionFigures) -> String {
            guard r.errors > 0 else { return "0" }
            let parts = r.errorsByOutcome.sorted { $0.key < $1.key }
            return "\(r.errors) (" + parts.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
                + ")"
        }
        return Page.table(
            [
                "region", "operations", "failed", "acknowledged writes", "longest gap", "of reads",
                "of writes", "before the fault", "longest wait", "p50", "p99",
            ],
            d.regions.map { region in
                [
                    region.name, "\(region.operations)", failed(region),
                    "\(region.acknowledgedWrites)",
                ]
                    + [
                        region.longestGapMs, region.longestReadGapMs, region.longestWriteGapMs,
                        region.baselineGapMs, region.longestWaitMs, region.p50Ms, region.p99Ms,
                    ].map(Words.milliseconds)
            }, numbers: Set(1...10))
    }
}
