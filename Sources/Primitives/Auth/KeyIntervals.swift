/// A set of keys as disjoint intervals in order: asked with a binary search, whatever the number of
/// permissions that it was made of. Neighbours that touch are one interval, so that a range is covered
/// also by several permissions together, as in etcd.
public struct KeyIntervals: Equatable, Sendable {
    /// `start <= key < end`; an end of nil is above all keys.
    struct Interval: Equatable, Sendable {
        var start: Bytes
        var end: Bytes?

        func ends(after key: Bytes) -> Bool {
            guard let end else { return true }
            return key < end
        }
    }
    private(set) var intervals: [Interval] = []

    public init(_ ranges: [KeyRange]) {
        var all: [Interval] = []
        all.reserveCapacity(ranges.count)
        for range in ranges where !range.isEmpty {
            all.append(Interval(start: range.key, end: Self.end(of: range)))
        }
        all.sort { $0.start < $1.start }
        for next in all {
            guard let last = intervals.last, Self.reaches(last, next.start) else {
                intervals.append(next)
                continue
            }
            if let end = last.end, next.end.map({ $0 > end }) ?? true {
                intervals[intervals.count - 1].end = next.end
            }
        }
    }

    private static func end(of range: KeyRange) -> Bytes? {
        if range.isSingle { return range.key.successor }
        return range.isFromKey ? nil : range.end
    }

    private static func reaches(_ interval: Interval, _ key: Bytes) -> Bool {
        guard let end = interval.end else { return true }
        return key <= end
    }

    public var isEmpty: Bool { intervals.isEmpty }

    public func contains(_ key: Bytes) -> Bool {
        // The interval stays where it is: each request of a user comes by here.
        let i = count(startingAtOrBefore: key)
        return i > 0 && intervals[i - 1].ends(after: key)
    }

    /// All of it. A range without keys is not contained in anything, as in etcd.
    public func contains(_ range: KeyRange) -> Bool {
        if range.isSingle { return contains(range.key) }
        let i = count(startingAtOrBefore: range.key)
        guard !range.isEmpty, i > 0 else { return false }
        guard let end = intervals[i - 1].end else { return true }
        return !range.isFromKey && range.end <= end
    }

    private func count(startingAtOrBefore key: Bytes) -> Int {
        var low = 0, high = intervals.count
        while low < high {
            let middle = (low + high) / 2
            if intervals[middle].start <= key { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
