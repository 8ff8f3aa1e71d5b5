package import Primitives

// What a split does to the state: the parent keeps what hashes below the cut, the child begins with the
// rest (protocol-rules.md U2, S22). Rows stay where they are: the store orders them by key.
extension PartitionState {
    /// A partition's part of the hash space.
    package struct Place: Equatable, Sendable {
        package var range: HashRange
        /// The newest partition that was cut off from this one, or itself: whoever counts with a map
        /// that ends before it does not know how this partition lies.
        package var newest: PartitionID
        /// Nil: the region was founded with it.
        package var origin: Origin?
        package init(range: HashRange, newest: PartitionID = .directory, origin: Origin? = nil) {
            self.range = range
            self.newest = newest
            self.origin = origin
        }
    }

    package struct Origin: Hashable, Sendable {
        package let split: PartitionSplit
        /// Of the split in the parent's log. The child's own log goes on from there, so that a place in
        /// the one can be compared with a place in the other (S16).
        package let slot: Slot
        /// The highest in the parent's log then: all that the child itself writes is above it.
        package let revision: Revision
    }

    /// The directory's.
    package struct Splits: Equatable, Sendable {
        package var done: [PartitionSplit] = []
        package var pending: PartitionSplit?
    }

    package var newest: PartitionID { place?.newest ?? .directory }

    /// As founded, if the records tell of no split.
    mutating func lies(in range: HashRange) {
        if place == nil { place = Place(range: range) }
    }

    /// No write is accepted outside of the partition's range.
    func checkPlace(of key: Bytes) {
        guard let range = place?.range else { return }
        invariant(range.contains(KeyHash.hash(key)), "\(group): a row outside of \(range)")
    }

    // MARK: In the parent's log

    /// False: it does not divide what is here.
    mutating func divide(
        _ split: PartitionSplit, at slot: Slot, into changes: inout [StoreChange]
    ) -> Bool {
        guard let whole = place?.range, split.parent == group.partition, split.child > newest,
            whole.first < split.cut, split.cut <= whole.last
        else { return false }
        var child = PartitionState(
            group: GroupID(keyspace: group.keyspace, partition: split.child))
        child.applied = slot
        child.sealedEpoch = sealedEpoch
        child.sealSlot = slot
        child.highestRevision = highestRevision
        child.highestStamp = highestStamp
        child.heardFrontier = heardFrontier
        child.compactRevision = compactRevision
        child.configuration = configuration
        // What is above the frontier stays the parent's to report: its log holds it.
        child.place = Place(
            range: whole.from(split.cut), newest: split.child,
            origin: Origin(split: split, slot: slot, revision: highestRevision))
        place = Place(
            range: whole.below(split.cut), newest: split.child, origin: place?.origin)
        setPlace(into: &changes)
        divideLeases(split, with: &child)
        newborn = [child]
        return true
    }

    /// Whoever adopts the child writes all of it (`recordAll`).
    private mutating func divideLeases(_ split: PartitionSplit, with child: inout PartitionState) {
        for (key, attachment) in leaseOfKey where KeyHash.hash(key) >= split.cut {
            child.leaseOfKey[key] = Attachment(lease: attachment.lease, isRecorded: true)
            child.leaseKeys[attachment.lease, default: []].insert(key)
        }
        for key in child.leaseOfKey.keys { attach(key, to: .none) }
        for lease in child.leaseKeys.keys where knownLeases.contains(lease) {
            child.knownLeases.insert(lease)
        }
        for (id, lease) in leases.sorted(by: { $0.key < $1.key }) {
            var lease = lease
            if KeyHash.hash(id) >= split.cut {
                if leaseKeys[id] != nil {
                    lease.know(split.parent)
                    setKnown(id, true)
                }
                child.leases[id] = lease
                setLease(id, nil)
            } else if child.leaseKeys[id] != nil {
                lease.know(split.child)
                setLease(id, lease)
                child.knownLeases.insert(id)
            }
        }
    }

    private func setPlace(into changes: inout [StoreChange]) {
        guard let place else { return }
        changes.append(.putRecord(group, key: Self.placeKey, value: place.encoded()))
    }

    /// Of a child, into a store that has nothing of it.
    package func recordAll(into changes: inout [StoreChange]) {
        setPlace(into: &changes)
        if let configuration {
            changes.append(.putRecord(group, key: Self.configurationKey, value: configuration))
        }
        for (id, lease) in leases.sorted(by: { $0.key < $1.key }) {
            changes.append(.putRecord(group, key: Self.key(lease: id), value: lease.encoded()))
        }
        for lease in knownLeases.sorted() {
            changes.append(.putRecord(group, key: Self.key(known: lease), value: .empty))
        }
        for (key, attachment) in leaseOfKey.sorted(by: { $0.key < $1.key }) {
            changes.append(
                .putRecord(group, key: Self.key(leaseOf: key), value: Self.value(attachment.lease)))
        }
        changes.append(.putRecord(group, key: Self.scalarsKey, value: encodedScalars()))
        changes.append(.applied(group, applied))
    }

    // MARK: In the directory's log

    mutating func intend(_ split: PartitionSplit, into changes: inout [StoreChange]) -> Bool {
        guard splits.pending == nil,
            splits.done.last.map({ $0.child.rawValue + 1 == split.child.rawValue }) ?? true
        else { return false }
        splits.pending = split
        setSplits(into: &changes)
        // Not a change of the list that others may have begun from: its version stays.
        if members.inherit(split.child, from: split.parent) { setMembers(into: &changes) }
        return true
    }

    mutating func publish(_ split: PartitionSplit, into changes: inout [StoreChange]) -> Bool {
        guard splits.pending == split else { return false }
        splits.pending = nil
        splits.done.append(split)
        setSplits(into: &changes)
        return true
    }

    private mutating func setSplits(into changes: inout [StoreChange]) {
        changes.append(.putRecord(group, key: Self.splitsKey, value: splits.encoded()))
    }
}

extension PartitionState.Lease {
    fileprivate mutating func know(_ partition: PartitionID) {
        guard !known.contains(partition) else { return }
        known.append(partition)
        known.sort()
    }
}

extension PartitionState.Place {
    func encoded() -> Bytes {
        var w = ByteWriter(capacity: 48)
        w.byte(1)
        w.hashRange(range)
        w.id(newest)
        w.bool(origin != nil)
        if let origin {
            w.split(origin.split)
            w.id(origin.slot)
            w.id(origin.revision)
        }
        return Bytes(w.bytes)
    }

    package init(_ r: inout ByteReader) throws(DecodingError) {
        let version = try r.byte()
        guard version == 1 else { throw DecodingError("place record version \(version)") }
        range = try r.hashRange()
        newest = try r.id()
        if try r.bool() { origin = .init(split: try r.split(), slot: try r.id(), revision: try r.id()) }
    }

    /// If it is such a record.
    package static func read(key: Bytes, value: Bytes) -> Self? {
        guard key == PartitionState.placeKey else { return nil }
        var reader = ByteReader(value)
        return try? Self(&reader)
    }
}

extension PartitionState.Splits {
    func encoded() -> Bytes {
        var w = ByteWriter(capacity: 64)
        w.byte(1)
        w.varint(done.count)
        for split in done { w.split(split) }
        w.bool(pending != nil)
        if let pending { w.split(pending) }
        return Bytes(w.bytes)
    }

    init(_ r: inout ByteReader) throws(DecodingError) {
        let version = try r.byte()
        guard version == 1 else { throw DecodingError("splits record version \(version)") }
        for _ in 0..<(try r.count(atLeast: 10)) { done.append(try r.split()) }
        if try r.bool() { pending = try r.split() }
    }
}
