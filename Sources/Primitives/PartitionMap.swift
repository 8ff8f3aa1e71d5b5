/// A partition was cut in two: from `cut` on its hashes belong to `child` (protocol-rules.md U2).
public struct PartitionSplit: Hashable, Sendable {
    public let parent: PartitionID
    public let child: PartitionID
    /// The child's first hash.
    public let cut: UInt64
    public init(parent: PartitionID, child: PartitionID, cut: UInt64) {
        self.parent = parent
        self.child = child
        self.cut = cut
    }
}

/// Which partition owns which part of the hash space. Partitions are numbered from 1 without gaps, in
/// the order in which they came: the number of partitions is also the map's age.
public struct PartitionMap: Equatable, Sendable {
    public struct Entry: Equatable, Sendable {
        public let partition: PartitionID
        public let range: HashRange
        public init(partition: PartitionID, range: HashRange) {
            self.partition = partition
            self.range = range
        }
    }

    public static let partitionsMax = 4096

    /// In order of their ranges, without gaps.
    public private(set) var entries: [Entry]
    /// In order, those that have happened since the region was founded.
    public private(set) var splits: [PartitionSplit] = []

    /// `count` equal ranges, partitions numbered from 1.
    public init(equalPartitions count: Int) {
        invariant(1 <= count && count <= Self.partitionsMax, "\(count)")
        entries = []
        let width = UInt64.max / UInt64(count)
        for i in 0..<count {
            let first = UInt64(i) * width + (i == 0 ? 0 : 1)
            let last = i == count - 1 ? UInt64.max : UInt64(i + 1) * width
            entries.append(
                Entry(partition: PartitionID(UInt32(i + 1)), range: HashRange(first: first, last: last)))
        }
    }

    public var count: Int { entries.count }
    /// The highest partition, which names the map's age.
    public var newest: PartitionID { PartitionID(UInt32(entries.count)) }
    public var version: UInt64 { 1 + UInt64(splits.count) }
    /// The newest that a split has made; `.directory`: there has been none.
    public var newestChild: PartitionID { splits.isEmpty ? .directory : newest }
    /// As it was before any split.
    public var founding: PartitionMap { PartitionMap(equalPartitions: entries.count - splits.count) }

    public func partition(of key: Bytes) -> PartitionID { partition(ofHash: KeyHash.hash(key)) }

    public func partition(ofHash hash: UInt64) -> PartitionID {
        var low = 0, high = entries.count - 1
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].range.last < hash { low = middle + 1 } else { high = middle }
        }
        return entries[low].partition
    }

    /// A lease is homed in the partition of its id's hash (protocol-rules.md C4).
    public func home(of lease: LeaseID) -> PartitionID { partition(ofHash: KeyHash.hash(lease)) }

    public func range(of partition: PartitionID) -> HashRange? {
        entries.first { $0.partition == partition }?.range
    }

    // MARK: Splits

    /// Nil: this is how the parent would be split now. Otherwise why not.
    public func refusal(of split: PartitionSplit) -> RequestError? {
        guard let range = range(of: split.parent) else { return .partitionNotFound }
        guard entries.count < Self.partitionsMax else { return .tooManyPartitions }
        guard range.first < split.cut, split.cut <= range.last else { return .cutOutside }
        return nil
    }

    /// False: it does not follow this map.
    @discardableResult
    public mutating func apply(_ split: PartitionSplit) -> Bool {
        guard split.child.rawValue == newest.rawValue + 1, refusal(of: split) == nil,
            let i = entries.firstIndex(where: { $0.partition == split.parent })
        else { return false }
        let range = entries[i].range
        entries[i] = Entry(partition: split.parent, range: range.below(split.cut))
        entries.insert(Entry(partition: split.child, range: range.from(split.cut)), at: i + 1)
        splits.append(split)
        return true
    }

    /// Before anything was cut off from it. Nil: this map ends before it.
    public func rangeAtBirth(of partition: PartitionID) -> HashRange? {
        var map = founding
        if let range = map.range(of: partition) { return range }
        for split in splits {
            map.apply(split)
            if split.child == partition { return map.range(of: partition) }
        }
        return nil
    }

    /// The partition that this one was cut off from.
    public func parent(of partition: PartitionID) -> PartitionID? {
        splits.first { $0.child == partition }?.parent
    }

    /// These, and whatever has been cut off from them since.
    public func withDescendants(_ list: [PartitionID]) -> [PartitionID] {
        if splits.isEmpty { return list }
        var found = list
        for split in splits where found.contains(split.parent) && !found.contains(split.child) {
            found.append(split.child)
        }
        return found
    }
}

extension HashRange {
    /// Both parts of a range that `cut` divides.
    public func below(_ cut: UInt64) -> HashRange { HashRange(first: first, last: cut - 1) }
    public func from(_ cut: UInt64) -> HashRange { HashRange(first: cut, last: last) }
    public var middle: UInt64 { first + (last - first) / 2 + 1 }
}

extension KeyHash {
    public static func hash(_ lease: LeaseID) -> UInt64 {
        var id = lease.rawValue.littleEndian
        return withUnsafeBytes(of: &id) { hash($0) }
    }
}

extension ByteWriter {
    public mutating func split(_ split: PartitionSplit) {
        id(split.parent)
        id(split.child)
        fixed64(split.cut)
    }
    public mutating func hashRange(_ range: HashRange) {
        fixed64(range.first)
        fixed64(range.last)
    }
}

extension ByteReader {
    public mutating func split() throws(DecodingError) -> PartitionSplit {
        PartitionSplit(parent: try id(), child: try id(), cut: try fixed64())
    }
    public mutating func hashRange() throws(DecodingError) -> HashRange {
        let first = try fixed64(), last = try fixed64()
        guard first <= last else { throw DecodingError("hash range") }
        return HashRange(first: first, last: last)
    }
}
