package import Foundation

/// What a drill is about, before it is run.
package struct DrillDescription: Codable, Sendable, Equatable {
    package var name: String
    package var hypothesis: String
    package var budgetGapMs: Double
    package var needs: String
}

/// `drill.json`. What scripts read (docs: "The contract with outside scripts") may not be renamed;
/// more fields may be added.
package struct DrillDocument: Codable, Sendable, Equatable {
    package struct Phase: Codable, Sendable, Equatable {
        package var name: String
        /// From the start of the load.
        package var atSeconds: Double
    }
    package struct RegionFigures: Codable, Sendable, Equatable {
        package var name: String
        package var operations: Int
        package var errors: Int
        package var errorsByOutcome: [String: Int]
        package var acknowledgedWrites: Int
        package var longestGapMs: Double
        package var longestReadGapMs: Double
        package var longestWriteGapMs: Double
        package var gapAtSeconds: Double
        /// Processor time that the machine's host took in the longest gap or 40 ms before or after it: `StolenTime`.
        package var gapStolenMs: Double?
        /// The longest gap before the fault: what this machine's noise alone does.
        package var baselineGapMs: Double
        package var longestWaitMs: Double
        package var p50Ms: Double
        package var p99Ms: Double
    }

    package var version = 1
    package var name: String
    package var verdict = "FAIL"
    package var hypothesis: String
    package var longestGapMs = 0.0
    package var errors = 0
    package var lostWrites = 0
    /// `nil`: the search was given up.
    package var linearizable: Bool?
    /// Of regions, after the fault; `nil` where the drill does not part them.
    package var converged: Bool?
    package var budgetGapMs: Double
    package var errorsAllowed = 0
    package var baselineGapMs = 0.0
    /// From the baseline on, of the nodes' logs: the bound of the histogram's bucket.
    package var slowestSyncMs: Double?
    package var victim: String?
    package var conflicts: Int?
    package var convergenceSeconds: Double?
    /// From the restart until the node answered a linearizable read.
    package var recoverySeconds: Double?
    package var rate: Double
    package var startedAt: Double
    package var phases: [Phase] = []
    package var regions: [RegionFigures] = []
    /// Why it failed.
    package var findings: [String] = []

    package init(
        name: String, hypothesis: String, budgetGapMs: Double, rate: Double, startedAt: Double
    ) {
        self.name = name
        self.hypothesis = hypothesis
        self.budgetGapMs = budgetGapMs
        self.rate = rate
        self.startedAt = startedAt
    }

    /// Around the longest gap of all; nil: nothing.
    var stolenMs: Double? {
        let worst = regions.max { $0.longestGapMs < $1.longestGapMs }
        return worst?.gapStolenMs.flatMap { $0 > 0 ? $0 : nil }
    }

    package func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return try encoder.encode(self) + Data("\n".utf8)
    }

    /// PASS only if everything that was claimed was seen.
    package mutating func judge() {
        if longestGapMs > budgetGapMs {
            findings.append(
                "the longest gap was \(Int(longestGapMs.rounded())) ms, the budget is "
                    + "\(Int(budgetGapMs.rounded())) ms")
        }
        if errors > errorsAllowed {
            findings.append("\(errors) operations failed, \(errorsAllowed) are allowed")
        }
        if lostWrites > 0 { findings.append("\(lostWrites) acknowledged writes are lost") }
        if linearizable == false { findings.append("the history is not linearizable") }
        if linearizable == nil {
            findings.append("whether the history is linearizable is not known")
        }
        if converged == false { findings.append("the regions did not become equal") }
        verdict = findings.isEmpty ? "PASS" : "FAIL"
    }
}
