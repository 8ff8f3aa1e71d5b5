import Primitives
import Testing

@testable import SLAProbe

@Suite struct LinearizabilityTests {
    typealias Op = RegisterOperation
    private func write(_ value: UInt64, _ start: UInt64, _ end: UInt64?) -> Op {
        Op(
            client: 0, action: .write(value), start: start, end: end ?? 0,
            result: end == nil ? .unknown : .done)
    }
    private func read(_ value: UInt64?, _ start: UInt64, _ end: UInt64) -> Op {
        Op(client: 0, action: .read(value), start: start, end: end, result: .done)
    }
    private func isLinearizable(_ history: [Op]) -> Bool {
        LinearizabilityChecker.check(history) == .linearizable
    }

    @Test func `reads see the last write`() {
        #expect(
            isLinearizable([
                read(nil, 0, 1), write(1, 2, 3), read(1, 4, 5), write(2, 6, 7), read(2, 8, 9),
            ]))
        #expect(!isLinearizable([write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)]))
        #expect(!isLinearizable([write(1, 0, 1), read(nil, 2, 3)]))
        #expect(!isLinearizable([read(7, 0, 1)]))
    }

    @Test func `overlapping operations may take either order, but one for all`() {
        #expect(isLinearizable([write(1, 0, 10), read(nil, 1, 2), read(1, 3, 4)]))
        #expect(!isLinearizable([write(1, 0, 10), read(1, 1, 2), read(nil, 3, 4)]))
        #expect(isLinearizable([write(1, 0, 10), write(2, 0, 10), read(1, 11, 12)]))
        #expect(
            !isLinearizable([write(1, 0, 10), write(2, 0, 10), read(1, 11, 12), read(2, 13, 14)]))
    }

    @Test func `an unknown write may have happened, late, or not at all`() {
        #expect(isLinearizable([write(1, 0, 1), write(2, 2, nil), read(1, 3, 4), read(2, 5, 6)]))
        #expect(isLinearizable([write(1, 0, 1), write(2, 2, nil), read(1, 3, 4)]))
        #expect(!isLinearizable([write(1, 0, 1), write(2, 2, nil), read(2, 3, 4), read(1, 5, 6)]))
        #expect(!isLinearizable([read(2, 0, 1), write(2, 2, nil)]))
    }

    @Test func `values written twice are searched too`() {
        #expect(
            isLinearizable([
                write(1, 0, 1), write(2, 2, 3), write(1, 4, nil), read(2, 5, 6), read(1, 7, 8),
            ]))
        #expect(!isLinearizable([write(1, 0, 1), write(2, 2, 3), read(1, 4, 5), write(1, 6, 7)]))
    }

    @Test func `a violation names an operation`() {
        let verdict = LinearizabilityChecker.check([write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)])
        #expect(verdict == .violation(explained: 2, culprit: read(1, 4, 5)))
    }

    /// Operations of a real register, each at a moment within its interval, are always explained; with
    /// one answer falsified they are not (values are unique and read after they were overwritten).
    @Test(arguments: 0..<20 as Range<UInt64>)
    func `histories of a true register pass and falsified ones do not`(seed: UInt64) {
        var random = SplitMix(seed: seed)
        var value: UInt64?
        var history: [Op] = []
        for step in 0..<400 as Range<UInt64> {
            // The operation takes effect at `moment`; its interval reaches around those of others.
            let moment = 1_000 + step * 10
            let start = moment - random.below(60), end = moment + random.below(60)
            if random.chance(1, in: 2) {
                value = step
                history.append(write(step, start, random.chance(1, in: 10) ? nil : end))
            } else {
                history.append(read(value, start, end))
            }
        }
        history.append(write(5_000, 900_000, 900_001))
        let explained = isLinearizable(history)
        #expect(explained)
        let end: UInt64 = 1_000_000
        history.append(write(9_999, end, end + 1))
        history.append(read(5_000, end + 2, end + 3))
        let staleExplained = isLinearizable(history)
        #expect(!staleExplained)
    }
}
