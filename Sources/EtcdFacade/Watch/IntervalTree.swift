import Primitives

/// Key ranges with a value each, asked for those that contain a key: a treap ordered by (start, end)
/// in which every node knows the highest end below it. Asking costs O(log n + found).
struct IntervalTree<Value> {
    private struct Node {
        var range: KeyRange
        /// nil in a node that is free.
        var value: Value?
        var priority: UInt64
        var left: Int32 = -1
        var right: Int32 = -1
        /// Exclusive end of the range, and the highest one of the whole subtree; nil: none.
        var end: Bytes?
        var highestEnd: Bytes?
    }
    private var nodes: [Node] = []
    private var free: [Int32] = []
    private var root: Int32 = -1
    /// Shapes the tree only; a fixed seed keeps runs equal.
    private var random = SplitMix(seed: 0x7265_6B6C_6F70)
    private(set) var count = 0

    init() {}

    // MARK: Asking

    func forEach(containing key: Bytes, _ body: (Value) -> Void) {
        visit(root, key, body)
    }

    private func visit(_ at: Int32, _ key: Bytes, _ body: (Value) -> Void) {
        guard at >= 0 else { return }
        let i = Int(at)
        if let highest = nodes[i].highestEnd, highest <= key { return }
        visit(nodes[i].left, key, body)
        if key < nodes[i].range.key { return }
        if nodes[i].range.contains(key), let value = nodes[i].value { body(value) }
        visit(nodes[i].right, key, body)
    }

    func contains(_ key: Bytes) -> Bool {
        var isFound = false
        forEach(containing: key) { _ in isFound = true }
        return isFound
    }

    /// All of them, in order of (start, end).
    func forEach(_ body: (KeyRange, Value) -> Void) { walk(root, body) }

    private func walk(_ at: Int32, _ body: (KeyRange, Value) -> Void) {
        guard at >= 0 else { return }
        walk(nodes[Int(at)].left, body)
        if let value = nodes[Int(at)].value { body(nodes[Int(at)].range, value) }
        walk(nodes[Int(at)].right, body)
    }

    subscript(range: KeyRange) -> Value? {
        var at = root
        while at >= 0 {
            let i = Int(at)
            if nodes[i].range == range { return nodes[i].value }
            at = Self.precedes(range, nodes[i].range) ? nodes[i].left : nodes[i].right
        }
        return nil
    }

    // MARK: Changing

    /// A range that is in already keeps its value.
    mutating func insert(_ range: KeyRange, _ value: Value) {
        guard self[range] == nil else { return }
        let end = range.isSingle ? range.key.successor : range.isFromKey ? nil : range.end
        let node = Node(
            range: range, value: value, priority: random.next(), end: end, highestEnd: end)
        let at: Int32
        if let reused = free.popLast() {
            nodes[Int(reused)] = node
            at = reused
        } else {
            nodes.append(node)
            at = Int32(nodes.count - 1)
        }
        let (left, right) = split(root, before: range)
        root = merge(merge(left, at), right)
        count += 1
    }

    mutating func remove(_ range: KeyRange) {
        guard self[range] != nil else { return }
        root = remove(range, from: root)
        count -= 1
    }

    private mutating func remove(_ range: KeyRange, from at: Int32) -> Int32 {
        guard at >= 0 else { return at }
        let i = Int(at)
        if nodes[i].range == range {
            nodes[i].value = nil
            free.append(at)
            return merge(nodes[i].left, nodes[i].right)
        }
        if Self.precedes(range, nodes[i].range) {
            nodes[i].left = remove(range, from: nodes[i].left)
        } else {
            nodes[i].right = remove(range, from: nodes[i].right)
        }
        refresh(i)
        return at
    }

    private static func precedes(_ a: KeyRange, _ b: KeyRange) -> Bool {
        a.key != b.key ? a.key < b.key : a.end < b.end
    }

    /// Two trees: what comes before `range`, and the rest.
    private mutating func split(_ at: Int32, before range: KeyRange) -> (Int32, Int32) {
        guard at >= 0 else { return (-1, -1) }
        let i = Int(at)
        if Self.precedes(nodes[i].range, range) {
            let (left, right) = split(nodes[i].right, before: range)
            nodes[i].right = left
            refresh(i)
            return (at, right)
        }
        let (left, right) = split(nodes[i].left, before: range)
        nodes[i].left = right
        refresh(i)
        return (left, at)
    }

    private mutating func merge(_ a: Int32, _ b: Int32) -> Int32 {
        guard a >= 0 else { return b }
        guard b >= 0 else { return a }
        if nodes[Int(a)].priority >= nodes[Int(b)].priority {
            nodes[Int(a)].right = merge(nodes[Int(a)].right, b)
            refresh(Int(a))
            return a
        }
        nodes[Int(b)].left = merge(a, nodes[Int(b)].left)
        refresh(Int(b))
        return b
    }

    private mutating func refresh(_ i: Int) {
        var highest = nodes[i].end
        for child in [nodes[i].left, nodes[i].right] where child >= 0 {
            guard let own = highest, let below = nodes[Int(child)].highestEnd else {
                highest = nil
                break
            }
            if own < below { highest = below }
        }
        nodes[i].highestEnd = highest
    }
}
