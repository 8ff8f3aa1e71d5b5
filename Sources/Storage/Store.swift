package import Primitives

/// The state of a node's partitions: every version of every key, the revision index, the groups'
/// records and applied slots, in one RocksDB without a log of its own (the write-ahead log is the
/// log). Confined to the core loop, except where a function says otherwise.
///
/// Functions that answer clients throw `RequestError`: `.compacted`, or `.stopped` after RocksDB
/// failed, which `onFailure` has then been told.
package final class Store {
    package struct Options: Sendable {
        package var blockCacheBytes = 256 << 20
        package var memtableBytes = 64 << 20
        /// Newest versions kept decoded, for evaluation and for single-key reads.
        package var currentCacheBytes = 64 << 20
        package var openFilesMax = 1024
        package var backgroundJobs = 2
        package init() {}
    }

    package var onFailure: (StorageError) -> Void = { _ in }

    package static func open(
        _ path: String, options: Options = Options()
    ) throws(StorageError) -> Store { fatalError() }
    package func close() {}
    private init() {}
}

// MARK: Writing
extension Store {
    /// In order and atomically; durable only by a flush.
    package func apply(_ changes: [StoreChange]) throws(StorageError) { fatalError() }

    /// Makes everything applied so far durable. Returns the applied slots that are.
    package func flush() throws(StorageError) -> [GroupID: Slot] { fatalError() }

    /// The same on a thread of its own, which also calls `completion`. One at a time: false if one runs.
    @discardableResult
    package func flushInBackground(
        _ completion: @escaping @Sendable (Result<[GroupID: Slot], StorageError>) -> Void
    ) -> Bool { fatalError() }
}

// MARK: Reading
extension Store {
    package struct Newest: Sendable {
        package var applied: Slot
        /// At most one a key; deletions included, versions above the frontier too.
        package var rows: [Row]
    }

    package func appliedSlots() -> [GroupID: Slot] { fatalError() }
    package func appliedSlot(of group: GroupID) -> Slot { fatalError() }
    package func records(
        of group: GroupID
    ) throws(StorageError) -> [(key: Bytes, value: Bytes)] { fatalError() }

    /// The newest stored version, deletions included.
    package func newest(
        _ key: Bytes, in keyspace: KeyspaceID
    ) throws(StorageError) -> Row? { fatalError() }

    /// What evaluation reads before a transaction: newest versions of the keys, and of all keys in the
    /// ranges, that hash into `hashes`.
    package func newest(
        keys: [Bytes], ranges: [KeyRange], of group: GroupID, hashes: HashRange
    ) throws(StorageError) -> Newest { fatalError() }

    /// etcd's Range at one revision (`query.revision` is not looked at).
    package func range(
        _ query: RangeQuery, at revision: Revision, in keyspace: KeyspaceID, hashes: HashRange = .all
    ) throws(RequestError) -> RangeResult { fatalError() }

    /// The version visible at `revision`; nil: none, or deleted.
    package func row(
        _ key: Bytes, at revision: Revision, in keyspace: KeyspaceID
    ) throws(RequestError) -> Row? { fatalError() }

    package struct ChangesPage: Equatable, Sendable {
        package var changes: [RevisionChanges]
        /// Everything through here is in `changes`; below what was asked for if `maxRows` ended the page.
        package var through: Revision
    }

    /// Whole revisions of `(after, through]` in order, at least one if there is any; `.compacted` if
    /// `after` is below the floor.
    package func changes(
        after: Revision, through: Revision, in keyspace: KeyspaceID, maxRows: Int,
        hashes: HashRange = .all
    ) throws(RequestError) -> ChangesPage { fatalError() }

    /// Of the history in `(compacted, revision]` and what is visible at `compacted`: equal on all nodes
    /// that hold it, however much of what lies below each has removed. Reads everything: see the
    /// background version.
    package func hash(
        at revision: Revision, compacted: Revision, in keyspace: KeyspaceID
    ) throws(RequestError) -> UInt32 { fatalError() }

    /// `completion` is called on another thread.
    package func hashInBackground(
        at revision: Revision, compacted: Revision, in keyspace: KeyspaceID,
        _ completion: @escaping @Sendable (Result<UInt32, RequestError>) -> Void
    ) { fatalError() }

    package struct Sizes: Equatable, Sendable {
        package var total: UInt64
        package var inUse: UInt64
    }
    package func sizes() -> Sizes { fatalError() }
}

// MARK: Compaction
extension Store {
    /// Reads below it are refused.
    package func floor(of keyspace: KeyspaceID) -> Revision { fatalError() }

    /// Raises the floor and begins a pass that removes what is superseded at it. The caller knows that
    /// every row at or below `floor` is decided and applied here (no prepared one, protocol-rules.md S17).
    package func compact(
        floor: Revision, in keyspace: KeyspaceID
    ) throws(StorageError) { fatalError() }

    /// Looks at up to `budget` changes. true: the pass is done (also if none runs).
    package func compactStep(
        budget: Int, in keyspace: KeyspaceID
    ) throws(StorageError) -> Bool { fatalError() }
}

// MARK: Snapshots of a group
extension Store {
    /// Groups whose import was cut short by a crash: they have no state here and need a snapshot.
    package var incompleteImports: [GroupID] { fatalError() }

    /// Of this moment; stays valid while the store goes on. May be read on another thread.
    package func exportSnapshot(
        of group: GroupID, hashes: HashRange
    ) throws(StorageError) -> SnapshotExport { fatalError() }

    /// Begins to replace the group's rows and records; see `SnapshotImport`.
    package func importSnapshot(
        of group: GroupID, hashes: HashRange
    ) throws(StorageError) -> SnapshotImport { fatalError() }
}

package final class SnapshotExport: @unchecked Sendable {
    /// The group's applied slot in this snapshot.
    package let applied: Slot
    init(applied: Slot) { self.applied = applied }
    /// The next chunk, about `bytesMax` long (longer only for one large row); nil after the last. A
    /// chunk may be nearly empty: one call looks at a bounded number of rows.
    package func next(bytesMax: Int) throws(StorageError) -> Bytes? { fatalError() }
    package func close() {}
}

/// While it is not finished the group has no state here; a crash in between leaves a mark.
package final class SnapshotImport {
    /// Removes old rows, a bounded number per call. true: done, chunks may be added.
    package func clear(budget: Int) throws(StorageError) -> Bool { fatalError() }
    /// Chunks in the order of the export. Throws `damaged` for bytes that are not the next chunk.
    package func add(_ chunk: Bytes) throws(StorageError) { fatalError() }
    /// After the last chunk: the group's applied slot. Call `Store.flush` before telling anybody.
    package func finish() throws(StorageError) -> Slot { fatalError() }
    init() {}
}
