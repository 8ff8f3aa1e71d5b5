import Primitives

/// Watchers by what they watch: a put finds those of its key without looking at the others. Single
/// keys hash; ranges (equal ones together) hang on an interval tree.
struct WatcherIndex {
    /// The watchers of one key or range. Removal swaps with the last, so order is not kept.
    final class Group {
        fileprivate(set) var watchers: [Watcher] = []

        fileprivate func add(_ watcher: Watcher) {
            watcher.position = watchers.count
            watchers.append(watcher)
        }
        fileprivate func remove(_ watcher: Watcher) {
            let at = watcher.position
            invariant(at < watchers.count && watchers[at] === watcher, "watcher at \(at)")
            watchers.swapAt(at, watchers.count - 1)
            watchers[at].position = at
            watchers.removeLast()
        }
    }
    private var singles: [Bytes: Group] = [:]
    private var ranges = IntervalTree<Group>()
    private(set) var count = 0

    init() {}
    var isEmpty: Bool { count == 0 }

    mutating func insert(_ watcher: Watcher) {
        count += 1
        if watcher.range.isSingle {
            if let group = singles[watcher.range.key] { return group.add(watcher) }
            let group = Group()
            singles[watcher.range.key] = group
            group.add(watcher)
        } else {
            if let group = ranges[watcher.range] { return group.add(watcher) }
            let group = Group()
            ranges.insert(watcher.range, group)
            group.add(watcher)
        }
    }

    mutating func remove(_ watcher: Watcher) {
        let range = watcher.range
        guard let group = range.isSingle ? singles[range.key] : ranges[range] else {
            invariant(false, "no watcher of this range")
            return
        }
        group.remove(watcher)
        count -= 1
        guard group.watchers.isEmpty else { return }
        if range.isSingle { singles[range.key] = nil } else { ranges.remove(range) }
    }

    /// All of them, in no order that means anything but the same one in every run: ranges in order,
    /// then single keys in order.
    func forEach(_ body: (Watcher) -> Void) {
        ranges.forEach { (_: KeyRange, group: Group) in group.watchers.forEach(body) }
        for key in singles.keys.sorted() { singles[key]?.watchers.forEach(body) }
    }

    func forEach(watching key: Bytes, _ body: (Watcher) -> Void) {
        if let group = singles[key] {
            for watcher in group.watchers { body(watcher) }
        }
        if ranges.count > 0 {
            ranges.forEach(containing: key) { group in
                for watcher in group.watchers { body(watcher) }
            }
        }
    }
}
