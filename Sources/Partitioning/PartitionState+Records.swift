package import Primitives

// The partition's records in the store: one letter, then what identifies the record. Version 1; the
// table stands in docs/formats.md.
extension PartitionState {
    /// Entries that a partition's conflict feed keeps.
    package static let conflictsMax: UInt64 = 10_000

    static let scalarsKey = Bytes("s")
    static let configurationKey = Bytes("m")
    package static let membersKey = Bytes("d")
    static let placeKey = Bytes("r")
    static let splitsKey = Bytes("x")
    /// All that is left of a replica that was dropped; it goes with a snapshot's other records.
    package static let droppedKey = Bytes("z")
    package static func dropped(lostThrough: Slot) -> Bytes {
        var writer = ByteWriter(capacity: 8)
        writer.id(lostThrough)
        return Bytes(writer.bytes)
    }

    static func key(prepared revision: Revision) -> Bytes { numbered("p", UInt64(revision.rawValue)) }
    static func key(lease: LeaseID) -> Bytes { numbered("l", UInt64(bitPattern: lease.rawValue)) }
    static func key(known lease: LeaseID) -> Bytes { numbered("n", UInt64(bitPattern: lease.rawValue)) }
    static func key(leaseOf key: Bytes) -> Bytes { Bytes(Array("k".utf8) + key.array) }
    static func key(cursor region: RegionID) -> Bytes { numbered("g", UInt64(region.rawValue)) }
    static let authScalarsKey = Bytes("a")
    static func key(user name: Bytes) -> Bytes { Bytes(Array("u".utf8) + name.array) }
    static func key(role name: Bytes) -> Bytes { Bytes(Array("o".utf8) + name.array) }
    static func key(conflict number: UInt64) -> Bytes { numbered("c", number) }

    /// The first letter of the conflict feed's records, for whoever lists them.
    package static let conflictPrefix = Bytes("c")

    static func value(_ lease: LeaseID) -> Bytes {
        var writer = ByteWriter(capacity: 10)
        writer.signed(lease.rawValue)
        return Bytes(writer.bytes)
    }

    static func value(_ revision: Revision) -> Bytes {
        var writer = ByteWriter(capacity: 10)
        writer.id(revision)
        return Bytes(writer.bytes)
    }

    private static func numbered(_ letter: String, _ number: UInt64) -> Bytes {
        var bytes = Array(letter.utf8)
        for shift in stride(from: 56, through: 0, by: -8) {
            bytes.append(UInt8(truncatingIfNeeded: number >> UInt64(shift)))
        }
        return Bytes(bytes)
    }

    func encodedScalars() -> Bytes {
        var w = ByteWriter(capacity: 96)
        w.byte(1)
        w.id(applied)
        w.ballot(appliedTerm)
        w.varint(appliedNumber)
        w.ballot(sealedEpoch)
        w.id(sealSlot)
        w.id(highestRevision)
        w.stamp(highestStamp)
        w.id(heardFrontier)
        w.id(compactRevision)
        w.varint(nextConflict)
        w.varint(recent.count)
        for r in recent {
            w.id(r.revision)
            w.id(r.slot)
            w.byte(r.kind.rawValue)
        }
        return Bytes(w.bytes)
    }

    /// The state as the store's records hold it.
    package init(group: GroupID, records: [(key: Bytes, value: Bytes)]) throws(DecodingError) {
        self.init(group: group)
        for record in records {
            guard record.key.count >= 1 else { throw DecodingError("empty record key") }
            var key = ByteReader(record.key[1..<record.key.count])
            var value = ByteReader(record.value)
            switch record.key[0] {
            case UInt8(ascii: "s"): try restoreScalars(&value)
            case UInt8(ascii: "d"): restore(members: try value.members())
            case UInt8(ascii: "m"): restore(configuration: record.value)
            case UInt8(ascii: "r"): place = try Place(&value)
            case UInt8(ascii: "x"): splits = try Splits(&value)
            case UInt8(ascii: "p"): try restore(prepared: PreparedRecord(&value))
            case UInt8(ascii: "l"):
                restore(lease: LeaseID(Int64(bitPattern: try key.big64())), try Lease(&value))
            case UInt8(ascii: "n"): restore(known: LeaseID(Int64(bitPattern: try key.big64())))
            case UInt8(ascii: "k"): restore(key: record.key[1..<record.key.count], LeaseID(try value.signed()))
            case UInt8(ascii: "g"):
                let number = try key.big64()
                guard let region = UInt16(exactly: number) else { throw DecodingError("region \(number)") }
                restore(cursor: RegionID(region), try value.id())
            case UInt8(ascii: "c"): break
            case UInt8(ascii: "z"): lostThrough = max(Slot(1), try value.id())
            case UInt8(ascii: "a"): try restoreAuth(&value)
            case UInt8(ascii: "u"): try restore(user: record.key[1..<record.key.count], &value)
            case UInt8(ascii: "o"): try restore(role: record.key[1..<record.key.count], &value)
            case let letter: throw DecodingError("record \(letter)")
            }
        }
        restored()
        // A mark beside a state would be a replica that has forgotten what it promised.
        invariant(!isDropped || applied == .zero, "\(group) is dropped and applied through \(applied)")
    }
}

extension ByteReader {
    mutating func big64() throws(DecodingError) -> UInt64 { UInt64(bigEndian: try fixed64().littleEndian) }
}

extension PartitionState.Lease {
    func encoded() -> Bytes {
        var w = ByteWriter(capacity: 16)
        w.signed(ttlSeconds)
        w.partitions(known)
        if let remainingSeconds { w.signed(remainingSeconds) }
        return Bytes(w.bytes)
    }
    init(_ r: inout ByteReader) throws(DecodingError) {
        self.init(ttlSeconds: try r.signed(), known: try r.partitions())
        if !r.isAtEnd { remainingSeconds = try r.signed() }
    }
}

extension PartitionState.PreparedRecord {
    func encoded() -> Bytes {
        var w = ByteWriter(capacity: 128)
        w.transactionID(transaction)
        w.partitions(participants)
        w.id(revision)
        w.id(slot)
        w.varint(keys.count)
        for k in keys {
            w.bytes(k.key)
            w.varint(UInt64(k.sub))
            w.signed(k.leaseBefore.rawValue)
        }
        w.varint(leasesKnown.count)
        for l in leasesKnown { w.signed(l.rawValue) }
        w.varint(leasesSpread.count)
        for s in leasesSpread {
            w.signed(s.lease.rawValue)
            w.id(s.partition)
        }
        w.varint(leasesEnded.count)
        for e in leasesEnded {
            w.signed(e.id.rawValue)
            w.bool(e.wasKnown)
            w.bool(e.lease != nil)
            if let lease = e.lease { w.bytes(lease.encoded()) }
        }
        w.bool(cursorBefore != nil)
        if let cursor = cursorBefore {
            w.id(cursor.region)
            w.id(cursor.revision)
        }
        return Bytes(w.bytes)
    }

    init(_ r: inout ByteReader) throws(DecodingError) {
        let transaction = try r.transactionID(), participants = try r.partitions()
        let revision: Revision = try r.id(), slot: Slot = try r.id()
        var keys: [Undo] = []
        for _ in 0..<(try r.count(atLeast: 3)) {
            keys.append(
                Undo(key: try r.bytes(), sub: try r.uint32(), leaseBefore: LeaseID(try r.signed())))
        }
        var known: [LeaseID] = []
        for _ in 0..<(try r.count()) { known.append(LeaseID(try r.signed())) }
        var spread: [LeaseSpread] = []
        for _ in 0..<(try r.count(atLeast: 2)) {
            spread.append(LeaseSpread(lease: LeaseID(try r.signed()), partition: try r.id()))
        }
        var ended: [EndedLease] = []
        for _ in 0..<(try r.count(atLeast: 3)) {
            let id = LeaseID(try r.signed()), wasKnown = try r.bool()
            var lease: PartitionState.Lease?
            if try r.bool() {
                var inner = ByteReader(try r.bytes())
                lease = try PartitionState.Lease(&inner)
            }
            ended.append(EndedLease(id: id, lease: lease, wasKnown: wasKnown))
        }
        let cursor = try r.bool() ? ReplicationBatch.Cursor(region: try r.id(), revision: try r.id()) : nil
        self.init(
            transaction: transaction, participants: participants, revision: revision, slot: slot,
            keys: keys, leasesKnown: known, leasesSpread: spread, leasesEnded: ended,
            cursorBefore: cursor)
    }
}
