import Primitives
import Simulator
import Testing

@Suite struct HistoryFileTests {
    private func verdict(_ lines: [String]) throws -> (CheckCommand.Verdict, [String]) {
        var printed: [String] = []
        let keys = try HistoryFile.parse(([HistoryFile.header] + lines).joined(separator: "\n"))
        return (CheckCommand.run(keys) { printed.append($0) }, printed)
    }

    @Test func `a history that an order explains passes`() throws {
        let (verdict, printed) = try verdict([
            "a 0 10 write k 1", "b 5 20 read k 1", "", "# a comment", "c 30 40 delete k",
            "b 50 60 absent k", "a 70 - write k 2", "b 80 90 absent k", "b 100 110 read k 2",
        ])
        #expect(verdict == .linearizable)
        #expect(printed == ["1 keys, 7 operations: linearizable"])
    }

    @Test func `a stale read is named`() throws {
        let (verdict, printed) = try verdict([
            "a 0 10 write k 1", "a 20 30 write k 2", "b 40 50 read k 1", "b 60 70 read k 2",
        ])
        #expect(verdict == .broken)
        #expect(printed.contains { $0.contains("- 40 50 read k 1") })
    }

    @Test func `keys and values of any bytes survive`() throws {
        for text: Bytes in ["", "a b%", Bytes([0, 255, 10, 13]), "ключ"] {
            let operation = RegisterOperation(
                .write(text), Instant(nanoseconds: 5_000), Instant(nanoseconds: 9_000))
            let line = HistoryFile.line(client: "x", key: text, operation)
            #expect(!line.contains("\n"))
            #expect(try HistoryFile.parse(HistoryFile.header + "\n" + line) == [text: [operation]])
        }
    }

    @Test(arguments: [
        "a 10 5 write k 1", "a 1 2 write k", "a 1 2 steal k 1", "a x 2 write k 1", "a 1 2 read %4 1",
    ])
    func `what is malformed is refused with its line`(line: String) {
        let error = #expect(throws: HistoryFile.Malformed.self) {
            try HistoryFile.parse(HistoryFile.header + "\n" + line)
        }
        #expect(error?.line == 2)
    }

    @Test func `a file of something else is refused`() {
        #expect(throws: HistoryFile.Malformed.self) { try HistoryFile.parse("a 1 2 write k 1") }
    }

    @Test func `what a run writes is linearizable`() throws {
        var options = Simulation.Options(seed: 3)
        options.duration = .milliseconds(300)
        options.regions = 1
        options.pace = 1
        let outcome = Simulation.run(options, keepsHistory: true)
        let keys = try HistoryFile.parse(outcome.history.joined(separator: "\n"))
        #expect(keys.count > 1)
        #expect(CheckCommand.run(keys) { _ in } == .linearizable)
    }
}

/// `make fuzz` goes on for longer.
@Suite struct FuzzTests {
    @Test func `no damage to what is received or read back does harm`() {
        var fuzzer = ParserFuzzer(seed: 1)
        for target in ParserFuzzer.Target.allCases {
            let report = fuzzer.run(target, rounds: 2_000)
            #expect(report.failures.isEmpty, "\(report.failures)")
            #expect(report.refused > 0, "\(target) takes everything")
        }
    }
}
