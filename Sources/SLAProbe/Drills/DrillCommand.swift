import Foundation
import Primitives

/// What a drill does to a node, besides killing it.
package enum DrillAction: String, Sendable { case start, stop, freeze, thaw }

package struct DrillOptions: Sendable {
    package var name: String
    /// The directory of a running `polder dev`.
    package var dev: String
    package var out: String
    /// Operations a second of the background load, over all regions that have load.
    package var rate = 1000.0
    /// Which region is hurt; the first if not given.
    package var region: String?
    /// How long the fault lasts.
    package var faultSeconds: Double?
    /// Instead of the drill's own budget.
    package var maximumGapMilliseconds: Double?
    /// Operations that may fail, instead of the drill's own number.
    package var errorsAllowed: Int?
    package var registers = 64
    /// Asks the running `polder dev` for it, and returns when it has been done; else why not. In this process: the
    /// start of another one is felt by the clients that are measured.
    package typealias Control = @Sendable (_ action: DrillAction, _ node: String) -> String?
    package var control: Control

    package init(name: String, dev: String, out: String, control: @escaping Control) {
        self.name = name
        self.dev = dev
        self.out = out
        self.control = control
    }
}

/// `polder drill`.
package enum DrillCommand {
    package static func list() -> [DrillDescription] { Drill.allCases.map(\.description) }

    /// For `-o json`.
    package static func listJSON() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(list()), as: UTF8.self)
    }

    /// Runs the drill, writes drill.json and drill.html; 0: PASS, 1: FAIL. Throws when the drill
    /// could not be run at all, which proves nothing.
    package static func run(
        _ options: DrillOptions, progress: @escaping @Sendable (String) -> Void = { _ in }
    ) async throws -> Int32 {
        guard let drill = Drill.allCases.first(where: { $0.description.name == options.name })
        else {
            let names = list().map(\.name).joined(separator: ", ")
            throw ProbeError.badOption("there is no drill '\(options.name)'; there are \(names)")
        }
        guard options.rate > 0, options.rate <= 100_000, options.registers > 0 else {
            throw ProbeError.badOption("--rate must be between 0 and 100000 operations a second")
        }
        let folder = URL(fileURLWithPath: options.out)
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        } catch {
            throw ProbeError.cannotWrite(path: folder.path, reason: error.localizedDescription)
        }
        let cluster = try DevCluster(directory: options.dev, control: options.control)
        let run = DrillRun(drill, options, cluster, progress)
        let document: DrillDocument
        do {
            document = try await run.run()
        } catch {
            await cluster.shutdown()
            throw error
        }
        await cluster.shutdown()
        do {
            try document.json().write(
                to: folder.appendingPathComponent("drill.json"), options: .atomic)
            try Data(DrillPage.html(document, run.evidence).utf8)
                .write(to: folder.appendingPathComponent("drill.html"), options: .atomic)
            let history = run.evidence.flatMap { $0.record.historyLines($0.region) }
            try Data((["# polder history 1"] + history).joined(separator: "\n").utf8)
                .write(to: folder.appendingPathComponent("history.txt"), options: .atomic)
        } catch {
            throw ProbeError.cannotWrite(path: folder.path, reason: error.localizedDescription)
        }
        progress(summary(document))
        return document.verdict == "PASS" ? 0 : 1
    }

    private static func summary(_ d: DrillDocument) -> String {
        var text =
            "\(d.verdict) \(d.name): longest gap \(Words.milliseconds(d.longestGapMs)) (budget "
            + "\(Words.milliseconds(d.budgetGapMs)), before the fault "
            + "\(Words.milliseconds(d.baselineGapMs))), \(d.errors) errors, \(d.lostWrites) lost "
            + "writes, linearizable " + (d.linearizable.map { $0 ? "yes" : "no" } ?? "not known")
        if let sync = d.slowestSyncMs { text += ", syncs up to \(Words.milliseconds(sync))" }
        if let stolen = d.stolenMs {
            text += ", the host withheld \(Words.milliseconds(stolen)) of processor time then"
        }
        if let converged = d.converged { text += ", converged \(converged ? "yes" : "no")" }
        if let conflicts = d.conflicts { text += ", \(conflicts) conflicts" }
        for finding in d.findings { text += "\n  - " + finding }
        return text
    }
}
