import Primitives
import Testing

@testable import EtcdFacade

@Suite struct IntervalTreeTests {
    private func key(_ random: inout SplitMix) -> Bytes {
        Bytes((0..<(1 + random.below(3))).map { _ in UInt8(random.below(4)) })
    }

    @Test(arguments: [1, 2, 3, 4, 5] as [UInt64])
    func `finds exactly the ranges that contain a key, through inserts and removals`(seed: UInt64) {
        var random = SplitMix(seed: seed)
        var tree = IntervalTree<Int>()
        var model: [KeyRange: Int] = [:]
        for step in 0..<2000 {
            let end: Bytes
            switch random.below(5) {
            case 0: end = .empty
            case 1: end = Bytes([0])
            default: end = key(&random)
            }
            let range = KeyRange(key: key(&random), end: end)
            if random.chance(1, in: 3) {
                tree.remove(range)
                model[range] = nil
            } else if model[range] == nil {
                tree.insert(range, step)
                model[range] = step
            }
            #expect(tree.count == model.count)
            let probe = key(&random)
            var found: [Int] = []
            tree.forEach(containing: probe) { found.append($0) }
            #expect(found.sorted() == model.filter { $0.key.contains(probe) }.map(\.value).sorted())
            #expect(tree[range] == model[range])
        }
        var all = 0
        tree.forEach { (range: KeyRange, value: Int) in
            #expect(model[range] == value)
            all += 1
        }
        #expect(all == model.count)
    }
}
