import Primitives

/// Counts the keys of a range by walking by them, piece by piece: of a million keys that takes longer than
/// anybody may keep the loop. What is counted once is known from then on (`NodeAccess.knownCount`).
struct RangeCounter {
    let range: KeyRange
    let revision: Revision
    /// What is known so far: of `range` up to `rest`.
    private(set) var count: Int64
    /// Nil: there is nothing more to look at.
    private var rest: KeyRange?
    /// Rows that were looked at here.
    private(set) var looked: Int64 = 0
    /// The node has been told.
    private var isBegun = false

    /// Fewer keys are as well counted again.
    private static let rememberedMin: Int64 = 128

    /// `count` keys of the range come before `rest`.
    init(
        _ range: KeyRange, at revision: Revision, after count: Int64 = 0, rest: KeyRange? = nil,
        _ node: any NodeAccess
    ) throws(RequestError) {
        self.range = range
        self.revision = revision
        if let known = try node.knownCount(range, at: revision) {
            self.count = known
        } else {
            self.count = count
            let rest = rest ?? range
            self.rest = rest.isEmpty ? nil : rest
        }
    }

    /// True: `count` is that of the whole range.
    mutating func step(
        _ node: any NodeAccess, rowsMax: Int, bytesMax: Int
    ) throws(RequestError) -> Bool {
        guard let rest else { return true }
        if looked > 0, let known = try node.knownCount(range, at: revision) {
            // Others who asked for the same were faster.
            count = known
            self.rest = nil
            return true
        }
        var rows = 0, bytes = 0, next: Bytes?
        let stop = try node.visit(rest, at: revision) { row in
            if rows == rowsMax || bytes >= bytesMax {
                next = Bytes(row.key)
                return false
            }
            rows += 1
            bytes += row.value.count
            return true
        }
        if stop != nil { throw .elsewhere }
        count += Int64(rows)
        looked += Int64(rows)
        if !isBegun, next != nil || count > Self.rememberedMin {
            isBegun = true
            try node.willCount(range, at: revision)
        }
        self.rest = next.map { KeyRange(key: $0, end: rest.end) }
        if next == nil, isBegun { node.counted(range, at: revision, count: count) }
        return next == nil
    }
}
