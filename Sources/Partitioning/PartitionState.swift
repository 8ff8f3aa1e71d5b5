package import Primitives

/// The replicated state of one partition apart from its rows (protocol-rules.md S22): a function of the
/// log's applied prefix. Every replica holds it in memory; the store holds it as records.
package struct PartitionState: Sendable {
    package struct Lease: Equatable, Sendable {
        package var ttlSeconds: Int64
        /// Partitions in which the lease is known (C4), in order.
        package var known: [PartitionID]
        /// As its last checkpoint says; nil: a new leader counts from the whole (S11).
        package var remainingSeconds: Int64?
        package init(ttlSeconds: Int64, known: [PartitionID], remainingSeconds: Int64? = nil) {
            self.ttlSeconds = ttlSeconds
            self.known = known
            self.remainingSeconds = remainingSeconds
        }
        /// What a new leader counts from.
        package var leftSeconds: Int64 { min(ttlSeconds, remainingSeconds ?? ttlSeconds) }
    }

    /// A settled or prepared revision above the heard frontier: what a registration reports (S8).
    package struct Recent: Hashable, Sendable {
        package enum Kind: UInt8, Sendable { case committed = 1, prepared, aborted }
        package let revision: Revision
        package let slot: Slot
        package let kind: Kind
    }

    package let group: GroupID
    package internal(set) var applied = Slot.zero
    package private(set) var appliedTerm = Term.zero
    package private(set) var appliedNumber: UInt64 = 0
    package internal(set) var sealedEpoch = Epoch.zero
    /// The slot of the newest begin or seal: counts in the tail at once (S5).
    package internal(set) var sealSlot = Slot.zero
    package internal(set) var highestRevision = Revision.zero
    package internal(set) var highestStamp = Stamp.zero
    /// The highest frontier whose tail this replica has applied; recorded with the applied slot.
    package internal(set) var heardFrontier = Revision.zero
    package private(set) var recent: [Recent] = []
    /// Prepared here, outcome not yet known; in order of revision. Kept until `W >= r` (S4).
    package private(set) var prepared: [PreparedRecord] = []
    package internal(set) var leases: [LeaseID: Lease] = [:]
    package internal(set) var knownLeases: Set<LeaseID> = []
    package internal(set) var leaseKeys: [LeaseID: Set<Bytes>] = [:]
    package internal(set) var leaseOfKey: [Bytes: Attachment] = [:]
    package private(set) var cursors: [RegionID: Revision] = [:]
    package internal(set) var compactRevision = Revision.zero
    /// What hashes here, and how it came to be: see PartitionState+Split.
    package internal(set) var place: Place?
    /// The directory's: splits that have come about, and the one that is under way.
    package internal(set) var splits = Splits()
    /// Of a replica that was dropped, and nothing else: through which slot its log is lost.
    package internal(set) var lostThrough = Slot.zero
    /// Cut off by the entry applied last. Not part of the state.
    package internal(set) var newborn: [PartitionState] = []
    package private(set) var nextConflict: UInt64 = 0
    /// The group's newest configuration, in consensus's own form; nil: the one it was founded with.
    package internal(set) var configuration: Bytes?
    /// The directory's only.
    package private(set) var auth = AuthState()
    /// Directory only.
    package internal(set) var members = RegionMembers()
    /// Something has come since the store was told last how far this is applied.
    var isUntold = false
    /// It must hold all of this at the end of the turn.
    var mustRecord = false
    var unrecorded = Unrecorded()
    /// Whose request the entry applied last carries out. Not part of the state.
    package private(set) var lastRequest: RequestMark?

    package struct Attachment: Equatable, Sendable {
        package let lease: LeaseID
        /// The store holds a record of the key, if perhaps of another lease.
        var isRecorded: Bool
    }

    package struct PreparedRecord: Equatable, Sendable {
        package let transaction: TransactionID
        package let participants: [PartitionID]
        package let revision: Revision
        package let slot: Slot
        /// The rows' keys with the lease each had before: what an abort puts back.
        package let keys: [Undo]
        package struct Undo: Equatable, Sendable {
            package let key: Bytes
            package let sub: UInt32
            package let leaseBefore: LeaseID
        }
        package let leasesKnown: [LeaseID]
        package let leasesSpread: [LeaseSpread]
        package let leasesEnded: [EndedLease]
        package struct EndedLease: Equatable, Sendable {
            package let id: LeaseID
            package let lease: Lease?
            package let wasKnown: Bool
        }
        package let cursorBefore: ReplicationBatch.Cursor?
    }

    package init(group: GroupID) { self.group = group }

    /// What a replica that was dropped leaves behind.
    package init(group: GroupID, lostThrough: Slot) {
        self.group = group
        self.lostThrough = lostThrough
    }

    /// Nothing of it is here any more: the region has let go of this replica.
    package var isDropped: Bool { lostThrough > .zero }

    /// Begins at `revision`, which everything here has been imported with (`ImportedState`).
    init(imported group: GroupID, revision: Revision, compacted: Revision, stamp: Stamp) {
        self.group = group
        applied = ImportedState.slot
        highestRevision = revision
        heardFrontier = revision
        highestStamp = stamp
        compactRevision = compacted
    }

    // MARK: Applying

    /// What an entry did, for the leader's pipeline and the node's watch merge.
    package enum Applied: Equatable, Sendable {
        case nothing
        case begin(Epoch)
        case sealed(Epoch)
        case effects(Effects)
        case prepared(Prepared)
        case aborted(TransactionID, Revision)
        case leaseGranted(LeaseID)
        case leaseRevoked(LeaseID)
        case leaseForgotten(LeaseID)
        case leaseCheckpoints([LeaseCheckpoint])
        case compacted(Revision)
        /// nil: done; the state's version tells whether it changed anything.
        case auth(nonce: UInt64, AuthError?)
        case members(RegionMembers)
        case rehearsed
        case split(PartitionSplit)
        case splitIntended(PartitionSplit)
        case splitPublished(PartitionSplit)
    }

    /// Applies the entry at `slot`; the changes of the store go to `changes`, rows first. `known` and
    /// `request`: what its payload says, if this process has encoded it itself.
    package mutating func apply(
        _ slot: Slot, _ entry: LogEntry, skipped: Bool, known: consuming EntryBody? = nil,
        for request: RequestMark? = nil, into changes: inout [StoreChange]
    ) -> Applied {
        invariant(slot == applied.next, "\(group): slot \(slot) after \(applied)")
        applied = slot
        isUntold = true
        lastRequest = nil
        if skipped { return .nothing }
        appliedTerm = entry.term
        if entry.kind != .configuration { appliedNumber = entry.number }
        switch entry.kind {
        case .filler: return .nothing
        case .configuration:
            mustRecord = true
            configuration = entry.payload.compact()
            changes.append(.putRecord(group, key: Self.configurationKey, value: entry.payload))
            return .nothing
        case .begin, .normal: break
        }
        let body: EntryBody
        if let known {
            assert(known.encoded(for: request) == entry.payload, "\(group): \(slot)")
            body = known
            lastRequest = request
        } else {
            do {
                (body, lastRequest) = try EntryBody.decode(entry.payload)
            } catch {
                // It was written by a leader of this version and carried a checksum all the way.
                invariant(false, "\(group): undecodable entry at \(slot): \(error.what)")
                return .nothing
            }
        }
        if !body.recordsMayWait { mustRecord = true }
        switch body {
        case .begin(let epoch):
            seal(epoch, at: slot)
            return .begin(epoch)
        case .seal(let epoch):
            seal(epoch, at: slot)
            return .sealed(epoch)
        case .effects(let effects):
            note(effects, slot: slot, kind: .committed)
            _ = perform(effects, canBeUndone: false, into: &changes)
            return .effects(effects)
        case .prepared(let prepare):
            note(prepare.effects, slot: slot, kind: .prepared)
            let undo = perform(prepare.effects, canBeUndone: true, into: &changes)
            let record = PreparedRecord(
                transaction: prepare.transaction, participants: prepare.participants,
                revision: prepare.effects.revision, slot: slot, keys: undo.keys,
                leasesKnown: undo.leasesKnown, leasesSpread: undo.leasesSpread,
                leasesEnded: undo.leasesEnded, cursorBefore: undo.cursorBefore)
            if Mutation.outcomesForgotten.isOn { return .prepared(prepare) }
            let at = prepared.firstIndex { $0.revision > record.revision } ?? prepared.count
            prepared.insert(record, at: at)
            return .prepared(prepare)
        case .aborted(let transaction, let revision):
            abort(transaction, revision, at: slot, into: &changes)
            return .aborted(transaction, revision)
        case .leaseGrant(let lease, let ttl):
            setLease(lease, Lease(ttlSeconds: ttl, known: []))
            return .leaseGranted(lease)
        case .leaseRevoked(let lease):
            setLease(lease, nil)
            return .leaseRevoked(lease)
        case .leaseForgotten(let lease):
            setKnown(lease, false)
            return .leaseForgotten(lease)
        case .leaseCheckpoints(let list):
            for checkpoint in list {
                guard var lease = leases[checkpoint.lease] else { continue }
                lease.remainingSeconds = checkpoint.remainingSeconds
                setLease(checkpoint.lease, lease)
            }
            return .leaseCheckpoints(list)
        case .members(let list):
            guard list.version == members.version + 1 else { return .nothing }
            members = list
            setMembers(into: &changes)
            return .members(list)
        case .rehearsal: return .rehearsed
        case .compact(let revision):
            compactRevision = max(compactRevision, revision)
            return .compacted(revision)
        case .auth(let nonce, let by, let command):
            return .auth(nonce: nonce, perform(command, by: by, into: &changes))
        case .split(let split):
            return divide(split, at: slot, into: &changes) ? .split(split) : .nothing
        case .splitIntended(let split):
            return intend(split, into: &changes) ? .splitIntended(split) : .nothing
        case .splitPublished(let split):
            return publish(split, into: &changes) ? .splitPublished(split) : .nothing
        }
    }

    private mutating func perform(
        _ command: AuthCommand, by: Bytes?, into changes: inout [StoreChange]
    ) -> AuthError? {
        var changed: [AuthState.Change] = []
        do throws(AuthError) {
            try auth.apply(command, by: by, changed: &changed)
        } catch {
            return error
        }
        for change in changed {
            let key: Bytes, value: Bytes?
            switch change {
            case .scalars: (key, value) = (Self.authScalarsKey, auth.encodedScalars())
            case .user(let name): (key, value) = (Self.key(user: name), auth.encodedUser(name))
            case .role(let name): (key, value) = (Self.key(role: name), auth.encodedRole(name))
            }
            if let value {
                changes.append(.putRecord(group, key: key, value: value))
            } else {
                changes.append(.removeRecord(group, key: key))
            }
        }
        return nil
    }

    func setMembers(into changes: inout [StoreChange]) {
        var writer = ByteWriter(capacity: 512)
        writer.members(members)
        changes.append(.putRecord(group, key: Self.membersKey, value: Bytes(writer.bytes)))
    }

    private mutating func seal(_ epoch: Epoch, at slot: Slot) {
        sealedEpoch = max(sealedEpoch, epoch)
        sealSlot = slot
    }

    private mutating func note(_ effects: Effects, slot: Slot, kind: Recent.Kind) {
        invariant(
            effects.epoch >= sealedEpoch, "\(group): epoch \(effects.epoch) after seal \(sealedEpoch)")
        highestRevision = max(highestRevision, effects.revision)
        highestStamp = max(highestStamp, effects.stamp)
        if effects.revision > heardFrontier {
            recent.append(Recent(revision: effects.revision, slot: slot, kind: kind))
        }
    }

    private struct Undo {
        var keys: [PreparedRecord.Undo] = []
        var leasesKnown: [LeaseID] = []
        var leasesSpread: [LeaseSpread] = []
        var leasesEnded: [PreparedRecord.EndedLease] = []
        var cursorBefore: ReplicationBatch.Cursor?
    }

    private mutating func perform(
        _ effects: Effects, canBeUndone: Bool, into changes: inout [StoreChange]
    ) -> Undo {
        var undo = Undo()
        if canBeUndone { undo.keys.reserveCapacity(effects.rows.count) }
        for i in effects.rows.indices {
            checkPlace(of: effects.rows[i].key)
            changes.append(.putRow(group.keyspace, effects.rows[i]))
            if !canBeUndone, effects.rows[i].lease == .none, leaseOfKey.isEmpty { continue }
            let row = effects.rows[i]
            let before = attach(row.key, to: row.lease)
            if canBeUndone { undo.keys.append(.init(key: row.key, sub: row.sub, leaseBefore: before)) }
        }
        for lease in effects.leasesKnown where !knownLeases.contains(lease) {
            setKnown(lease, true)
            undo.leasesKnown.append(lease)
        }
        for spread in effects.leasesSpread {
            guard var lease = leases[spread.lease], !lease.known.contains(spread.partition) else { continue }
            lease.known.append(spread.partition)
            lease.known.sort()
            setLease(spread.lease, lease)
            undo.leasesSpread.append(spread)
        }
        for lease in effects.leasesEnded {
            undo.leasesEnded.append(
                .init(id: lease, lease: leases[lease], wasKnown: knownLeases.contains(lease)))
            setKnown(lease, false)
            setLease(lease, nil)
        }
        if let cursor = effects.cursor {
            undo.cursorBefore = .init(region: cursor.region, revision: cursors[cursor.region] ?? .zero)
            setCursor(cursor)
        }
        // Their numbers are in the scalars.
        if !effects.conflicts.isEmpty { mustRecord = true }
        for conflict in effects.conflicts {
            changes.append(.putRecord(group, key: Self.key(conflict: nextConflict), value: conflict))
            // The feed is bounded: the oldest makes room.
            if nextConflict >= Self.conflictsMax {
                changes.append(.removeRecord(group, key: Self.key(conflict: nextConflict - Self.conflictsMax)))
            }
            nextConflict += 1
        }
        return undo
    }

    private mutating func abort(
        _ transaction: TransactionID, _ revision: Revision, at slot: Slot,
        into changes: inout [StoreChange]
    ) {
        guard let i = prepared.firstIndex(where: { $0.transaction == transaction }) else { return }
        let record = prepared.remove(at: i)
        for undo in record.keys.reversed() {
            changes.append(
                .removeRow(group.keyspace, key: undo.key, revision: record.revision, sub: undo.sub))
            attach(undo.key, to: undo.leaseBefore)
        }
        for lease in record.leasesKnown { setKnown(lease, false) }
        for spread in record.leasesSpread {
            guard var lease = leases[spread.lease] else { continue }
            lease.known.removeAll { $0 == spread.partition }
            setLease(spread.lease, lease)
        }
        for ended in record.leasesEnded {
            setLease(ended.id, ended.lease)
            setKnown(ended.id, ended.wasKnown)
        }
        if let cursor = record.cursorBefore { setCursor(cursor) }
        if let j = recent.firstIndex(where: { $0.revision == record.revision && $0.kind == .prepared }) {
            recent[j] = Recent(revision: record.revision, slot: slot, kind: .aborted)
        }
    }

    /// Returns the lease that it was attached to.
    @discardableResult
    mutating func attach(_ key: Bytes, to lease: LeaseID) -> LeaseID {
        guard let before = leaseOfKey[key] else {
            if lease != .none { hold(key, lease, isRecorded: unrecorded.detached.remove(key) != nil) }
            return .none
        }
        if before.lease == lease { return lease }
        leaseKeys[before.lease]?.remove(key)
        if leaseKeys[before.lease]?.isEmpty == true { leaseKeys[before.lease] = nil }
        if lease != .none {
            hold(key, lease, isRecorded: before.isRecorded)
        } else {
            leaseOfKey.removeValue(forKey: key)
            if before.isRecorded { unrecorded.detached.insert(key.compact()) }
        }
        return before.lease
    }

    private mutating func hold(_ key: Bytes, _ lease: LeaseID, isRecorded: Bool) {
        let own = key.compact()
        leaseOfKey[own] = Attachment(lease: lease, isRecorded: isRecorded)
        leaseKeys[lease, default: []].insert(own)
        unrecorded.attached.append(own)
    }

    mutating func setLease(_ id: LeaseID, _ lease: Lease?) {
        let before = leases[id]
        if lease == nil && before == nil { return }
        leases[id] = lease
        Unrecorded.note(id, isThere: lease != nil, wasThere: before != nil, in: &unrecorded.leases)
    }

    mutating func setKnown(_ id: LeaseID, _ known: Bool) {
        if known == knownLeases.contains(id) { return }
        if known {
            knownLeases.insert(id)
        } else {
            knownLeases.remove(id)
        }
        Unrecorded.note(id, isThere: known, wasThere: !known, in: &unrecorded.known)
    }

    /// How far another region's stream is applied for certain: what is prepared may still be undone.
    package func decidedCursor(of region: RegionID) -> Revision {
        // In order of revision: the first that touches it knows what was there before all of them.
        for record in prepared {
            if let before = record.cursorBefore, before.region == region { return before.revision }
        }
        return cursors[region] ?? .zero
    }

    private mutating func setCursor(_ cursor: ReplicationBatch.Cursor) {
        cursors[cursor.region] = cursor.revision
        unrecorded.cursors.insert(cursor.region)
    }

    // MARK: The frontier

    /// The frontier has reached `frontier`, and its tail is applied: outcomes at and below it are known, and
    /// the records of transactions that are committed by it are dropped.
    package mutating func heard(frontier: Revision) {
        guard frontier > heardFrontier else { return }
        heardFrontier = frontier
        if !recent.isEmpty { recent.removeAll { $0.revision <= frontier } }
        guard let first = prepared.first, first.revision <= frontier else { return }
        let left = prepared.firstIndex { $0.revision > frontier } ?? prepared.count
        prepared.removeSubrange(..<left)
        isUntold = true
    }

    // MARK: The store's records

    /// Once a turn, if anything was applied in it. `waiting`: so many records may wait for the next time that
    /// the store is made durable; with more, all are written now, or that would take long.
    package mutating func tellStore(waiting most: Int, into changes: inout [StoreChange]) {
        guard isUntold else { return }
        if mustRecord || unrecorded.count > most && countAttached() > most {
            record(into: &changes)
        } else {
            isUntold = false
            changes.append(.position(group, applied))
        }
    }

    /// Of what has been attached since the last time much may not be so any more.
    private mutating func countAttached() -> Int {
        unrecorded.attached = unrecorded.attachedNow(leaseOfKey)
        return unrecorded.count
    }

    /// What the store does not hold as it is here, and how far it is applied.
    package mutating func record(into changes: inout [StoreChange]) {
        isUntold = false
        mustRecord = false
        for key in unrecorded.detached.sorted() { changes.append(.removeRecord(group, key: Self.key(leaseOf: key))) }
        for key in unrecorded.attachedNow(leaseOfKey) {
            guard let lease = leaseOfKey[key]?.lease else { continue }
            changes.append(.putRecord(group, key: Self.key(leaseOf: key), value: Self.value(lease)))
            leaseOfKey[key]?.isRecorded = true
        }
        for id in unrecorded.leases.keys.sorted() {
            let key = Self.key(lease: id)
            changes.append(
                leases[id].map { .putRecord(group, key: key, value: $0.encoded()) } ?? .removeRecord(group, key: key))
        }
        for id in unrecorded.known.keys.sorted() {
            let key = Self.key(known: id)
            changes.append(
                knownLeases.contains(id)
                    ? .putRecord(group, key: key, value: .empty) : .removeRecord(group, key: key))
        }
        for region in unrecorded.cursors.sorted() {
            guard let revision = cursors[region] else { continue }
            changes.append(.putRecord(group, key: Self.key(cursor: region), value: Self.value(revision)))
        }
        for revision in unrecorded.prepared.sorted() where !prepared.contains(where: { $0.revision == revision }) {
            changes.append(.removeRecord(group, key: Self.key(prepared: revision)))
        }
        for record in prepared where !unrecorded.prepared.contains(record.revision) {
            changes.append(
                .putRecord(group, key: Self.key(prepared: record.revision), value: record.encoded()))
        }
        unrecorded = Unrecorded(prepared: Set(prepared.map(\.revision)))
        changes.append(.putRecord(group, key: Self.scalarsKey, value: encodedScalars()))
        changes.append(.applied(group, applied))
    }

    // MARK: Reading back at start

    mutating func restoreScalars(_ r: inout ByteReader) throws(DecodingError) {
        let version = try r.byte()
        guard version == 1 else { throw DecodingError("partition record version \(version)") }
        applied = try r.id()
        appliedTerm = try r.ballot()
        appliedNumber = try r.varint()
        sealedEpoch = try r.ballot()
        sealSlot = try r.id()
        highestRevision = try r.id()
        highestStamp = try r.stamp()
        heardFrontier = try r.id()
        compactRevision = try r.id()
        nextConflict = try r.varint()
        for _ in 0..<(try r.count(atLeast: 3)) {
            let revision: Revision = try r.id(), slot: Slot = try r.id()
            guard let kind = Recent.Kind(rawValue: try r.byte()) else { throw DecodingError("kind") }
            recent.append(Recent(revision: revision, slot: slot, kind: kind))
        }
    }

    mutating func restore(members list: RegionMembers) { members = list }
    mutating func restore(configuration payload: Bytes) { configuration = payload }
    mutating func restore(prepared record: PreparedRecord) {
        prepared.append(record)
        unrecorded.prepared.insert(record.revision)
    }
    mutating func restore(lease: LeaseID, _ value: Lease) { leases[lease] = value }
    mutating func restore(known lease: LeaseID) { knownLeases.insert(lease) }
    mutating func restore(key: Bytes, _ lease: LeaseID) {
        leaseOfKey[key] = Attachment(lease: lease, isRecorded: true)
        leaseKeys[lease, default: []].insert(key)
    }
    mutating func restore(cursor region: RegionID, _ revision: Revision) { cursors[region] = revision }
    mutating func restoreAuth(_ r: inout ByteReader) throws(DecodingError) {
        try auth.restoreScalars(&r)
    }
    mutating func restore(user name: Bytes, _ r: inout ByteReader) throws(DecodingError) {
        try auth.restoreUser(name, &r)
    }
    mutating func restore(role name: Bytes, _ r: inout ByteReader) throws(DecodingError) {
        try auth.restoreRole(name, &r)
    }
    mutating func restored() { prepared.sort { $0.revision < $1.revision } }
}
