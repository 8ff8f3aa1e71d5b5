/// The catalogue.
enum Drill: Sendable, CaseIterable {
    case leaderCrash, nodeCrash, leaderFreeze, rollingRestart, split, move, regionIsolation

    /// Budgets are those of the availability targets.
    var description: DrillDescription {
        switch self {
        case .leaderCrash:
            DrillDescription(
                name: "leader-crash",
                hypothesis: "When the process that leads a region (its sequencer, and most of its "
                    + "partitions) is killed, clients of the region's other nodes go on within "
                    + "150 ms, and no more fails than was due in these; no acknowledged write is "
                    + "lost, and every history is linearizable.",
                budgetGapMs: 150, needs: "a region of three nodes")
        case .nodeCrash:
            DrillDescription(
                name: "node-crash",
                hypothesis: "When the process that leads least is killed, clients of the region's "
                    + "other nodes hardly notice: they go on within 50 ms, and no more fails than was "
                    + "due in these; no acknowledged write is lost, and every history is linearizable.",
                budgetGapMs: 50, needs: "a region of three nodes")
        case .leaderFreeze:
            DrillDescription(
                name: "leader-freeze",
                hypothesis: "When the process that leads a region stands still (SIGSTOP: its "
                    + "connections stay open and answer nothing), clients of the region's other nodes "
                    + "go on within 600 ms, and nothing of theirs fails; when it goes on it does no "
                    + "harm: no acknowledged write is lost, and every history is linearizable.",
                budgetGapMs: 600, needs: "a region of three nodes")
        case .rollingRestart:
            DrillDescription(
                name: "rolling-restart",
                hypothesis: "When every node of a region is stopped and started in turn, as for an "
                    + "upgrade, clients that know several nodes hardly notice: no pause is longer "
                    + "than 20 ms, nothing fails, no acknowledged write is lost, and every history is "
                    + "linearizable.",
                budgetGapMs: 20, needs: "a region of three nodes")
        case .split:
            DrillDescription(
                name: "split",
                hypothesis: "When partitions of a region are cut in two, one after the other, clients "
                    + "hardly notice: no pause is longer than 20 ms, nothing fails, no acknowledged "
                    + "write is lost, and every history is linearizable.",
                budgetGapMs: 20, needs: "a region of three nodes")
        case .move:
            DrillDescription(
                name: "move",
                hypothesis: "When the partitions of a region go to other voters and other leaders, one "
                    + "after the other, and back, clients hardly notice: no pause is longer than 20 ms, "
                    + "nothing fails, no acknowledged write is lost, and every history is linearizable.",
                budgetGapMs: 20, needs: "a region of three nodes")
        case .regionIsolation:
            DrillDescription(
                name: "region-isolation",
                hypothesis: "When a region is cut off from the others, all go on serving reads and "
                    + "writes as if nothing had happened; when the link is mended, they become equal, "
                    + "no acknowledged write is lost but to one of another region, and what lost a "
                    + "conflict is in the conflict feed.",
                budgetGapMs: 150, needs: "two regions, and --enable-fault-injection")
        }
    }

    /// What is under way when a process dies may fail: whether it was done, nobody may know. A cut
    /// between regions is nothing that their clients should see.
    func errorsAllowed(rate: Double) -> Int {
        switch self {
        case .leaderCrash, .nodeCrash: Int(rate * description.budgetGapMs / 1000)
        case .leaderFreeze, .rollingRestart, .split, .move, .regionIsolation: 0
        }
    }
}
