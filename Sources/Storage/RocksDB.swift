import CRocksDB
import Glibc
import Primitives

// The only file that calls RocksDB's C API.

/// One RocksDB with one column family (so that every flush is atomic, protocol-rules.md S21), its own
/// log off. Its handle may be used from several threads; a `WriteBatch` and a `Cursor` may not.
final class RocksDatabase: @unchecked Sendable {
    private let db: OpaquePointer
    private let options: OpaquePointer
    private let table: OpaquePointer
    private let cache: OpaquePointer
    private let writing: OpaquePointer
    private let getting: OpaquePointer
    /// Guards the two below: cursors and snapshots end on any thread.
    private let monitor = Monitor()
    private var children = 0
    private var isClosing = false
    private var isCompacting = false

    init(_ path: String, _ wanted: Store.Options) throws(StorageError) {
        options = rocksdb_options_create()
        table = rocksdb_block_based_options_create()
        cache = rocksdb_cache_create_lru(wanted.blockCacheBytes)
        writing = rocksdb_writeoptions_create()
        getting = rocksdb_readoptions_create()
        rocksdb_block_based_options_set_block_cache(table, cache)
        rocksdb_block_based_options_set_block_size(table, 16 << 10)
        rocksdb_block_based_options_set_format_version(table, 5)
        rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10))
        // Nobody asks for one version by its whole key but the store itself at its start.
        rocksdb_block_based_options_set_whole_key_filtering(table, 0)
        rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1)
        rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(table, 1)
        rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1)
        rocksdb_options_set_block_based_table_factory(options, table)
        rocksdb_options_set_create_if_missing(options, 1)
        rocksdb_options_set_paranoid_checks(options, 1)
        rocksdb_options_set_write_buffer_size(options, wanted.memtableBytes)
        rocksdb_options_set_max_write_buffer_number(options, 4)
        rocksdb_options_set_max_open_files(options, Int32(wanted.openFilesMax))
        rocksdb_options_set_max_background_jobs(options, Int32(wanted.backgroundJobs))
        rocksdb_options_set_bytes_per_sync(options, 1 << 20)
        rocksdb_options_set_keep_log_file_num(options, 4)
        rocksdb_options_set_max_log_file_size(options, 8 << 20)
        rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1)
        rocksdb_options_set_compression(options, Int32(rocksdb_lz4_compression))
        // Filters for "any version of this key": the prefix is the key without the revision.
        rocksdb_options_set_prefix_extractor(options, keyPrefixTransform())
        // Of 64 MiB, a quarter of which is filled before the log asks for a flush.
        rocksdb_options_set_memtable_prefix_bloom_size_ratio(options, 0.01)
        rocksdb_writeoptions_disable_WAL(writing, 1)
        rocksdb_readoptions_set_verify_checksums(getting, 1)
        let options = self.options
        db = try Self.checked { rocksdb_open(options, path, $0) }
    }

    deinit { close() }

    /// Flushes what is not (an orderly end needs no replay). With cursors or snapshots still alive the
    /// last of them closes.
    func close() {
        monitor.lock()
        let isFirst = !isClosing, isLast = children == 0
        isClosing = true
        let wasCompacting = isCompacting
        monitor.unlock()
        if wasCompacting { rocksdb_disable_manual_compaction(db) }
        if isFirst && isLast { release() }
    }

    /// RocksDB counts into thread-local variables unless told not to, thread by thread: a tenth of the
    /// time of a walk.
    fileprivate static func countNothing() { rocksdb_set_perf_level(Int32(rocksdb_disable)) }

    fileprivate func began() {
        Self.countNothing()
        monitor.lock()
        invariant(!isClosing || children > 0, "read of a closed store")
        children += 1
        monitor.unlock()
    }

    fileprivate func ended() {
        monitor.lock()
        children -= 1
        let isLast = isClosing && children == 0
        monitor.unlock()
        if isLast { release() }
    }

    private func release() {
        rocksdb_close(db)
        rocksdb_readoptions_destroy(getting)
        rocksdb_writeoptions_destroy(writing)
        rocksdb_options_destroy(options)
        rocksdb_block_based_options_destroy(table)
        rocksdb_cache_destroy(cache)
    }

    static func checked<R>(
        _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> R?
    ) throws(StorageError) -> R {
        var text: UnsafeMutablePointer<CChar>?
        let result = body(&text)
        if let text {
            defer { rocksdb_free(text) }
            throw failure(String(cString: text))
        }
        guard let result else { throw .database("no result and no error") }
        return result
    }

    /// RocksDB tells through its C interface only in words. "Corruption" is a checksum that does not fit, a
    /// file that is missing or cut; a sector that the disk cannot read is no better.
    static func failure(_ reason: String) -> StorageError {
        if reason.contains("No space left") { return .noSpace("store: \(reason)") }
        let isUnreadable = reason.contains("While pread") && reason.contains("Input/output error")
        if reason.contains("Corruption") || isUnreadable { return .corrupt(reason) }
        return reason.contains("IO error") ? .io("store: \(reason)") : .database(reason)
    }

    /// Whether files are rewritten by themselves. Without, reads look at ever more of them, and nothing stalls.
    func compactsByItself(_ does: Bool) throws(StorageError) {
        let name = strdup("disable_auto_compactions"), value = strdup(does ? "false" : "true")
        defer {
            free(name)
            free(value)
        }
        let names = [UnsafePointer<CChar>(name)], values = [UnsafePointer<CChar>(value)]
        try Self.checked { rocksdb_set_options(db, 1, names, values, $0) }
    }

    func write(_ batch: WriteBatch) throws(StorageError) {
        Self.countNothing()
        try Self.checked { rocksdb_write(db, writing, batch.handle, $0) }
    }

    /// A whole batch, in the form in which RocksDB itself keeps one (`OrderedWrites`).
    func write(_ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        Self.countNothing()
        let batch = rocksdb_writebatch_create_from(bytes.chars, bytes.count)
        defer { rocksdb_writebatch_destroy(batch) }
        try Self.checked { rocksdb_write(db, writing, batch, $0) }
    }

    func get(_ key: [UInt8]) throws(StorageError) -> Bytes? {
        try get(key) { Bytes($0) }
    }

    /// `body` gets RocksDB's own memory, for the time of the call.
    func get<R>(
        _ key: [UInt8], _ body: (UnsafeRawBufferPointer) -> R
    ) throws(StorageError) -> R? {
        let found: OpaquePointer?? = try Self.checked { error in
            key.withUnsafeBytes { raw in
                .some(rocksdb_get_pinned(db, getting, raw.chars, raw.count, error))
            }
        }
        guard let slice = found ?? nil else { return nil }
        defer { rocksdb_pinnableslice_destroy(slice) }
        var count = 0
        let bytes = rocksdb_pinnableslice_value(slice, &count)
        return body(UnsafeRawBufferPointer(start: bytes, count: count))
    }

    func flush() throws(StorageError) {
        let how = rocksdb_flushoptions_create()
        defer { rocksdb_flushoptions_destroy(how) }
        rocksdb_flushoptions_set_wait(how, 1)
        try Self.checked { rocksdb_flush(db, how, $0) }
    }

    /// Everything, level by level, on a thread of its own; ends early when the database closes.
    func compactInBackground() -> Bool {
        monitor.lock()
        let isFree = !isCompacting && !isClosing
        if isFree { isCompacting = true }
        monitor.unlock()
        guard isFree else { return false }
        began()
        let run: @Sendable () -> Void = {
            rocksdb_compact_range(self.db, nil, 0, nil, 0)
            self.monitor.lock()
            self.isCompacting = false
            self.monitor.unlock()
            self.ended()
        }
        if (try? Posix.startDetachedThread(run)) != nil { return true }
        // Not on the caller's thread: it may take minutes, and is never urgent.
        monitor.lock()
        isCompacting = false
        monitor.unlock()
        ended()
        return false
    }

    var isCompactingInBackground: Bool {
        monitor.lock()
        defer { monitor.unlock() }
        return isCompacting
    }

    func property(_ name: String) -> UInt64 {
        var value: UInt64 = 0
        return rocksdb_property_int(db, name, &value) == 0 ? value : 0
    }

    func snapshot() -> Snapshot {
        began()
        return Snapshot(self, rocksdb_create_snapshot(db))
    }

    /// A fixed view; kept open by whoever reads it.
    final class Snapshot: @unchecked Sendable {
        private let database: RocksDatabase
        fileprivate let handle: OpaquePointer?
        fileprivate init(_ database: RocksDatabase, _ handle: OpaquePointer?) {
            self.database = database
            self.handle = handle
        }
        deinit {
            rocksdb_release_snapshot(database.db, handle)
            database.ended()
        }

        func cursor(until end: [UInt8]) -> Cursor {
            Cursor(database, database.db, end: end, snapshot: self, fillsCache: false)
        }
    }

    /// In key order, up to `end` (exclusive).
    func cursor(until end: [UInt8], fillsCache: Bool = true) -> Cursor {
        Cursor(self, db, end: end, snapshot: nil, fillsCache: fillsCache)
    }

    /// Sees only keys with the same prefix as what was sought; may use the filters.
    func prefixCursor() -> Cursor { Cursor(self, db, end: nil, snapshot: nil, fillsCache: true) }
}

final class WriteBatch {
    fileprivate let handle: OpaquePointer = rocksdb_writebatch_create()
    private(set) var count = 0
    /// Follows the rest when the batch is written, and is dropped with it.
    var ordered = OrderedWrites()
    deinit { rocksdb_writebatch_destroy(handle) }

    func clear() {
        rocksdb_writebatch_clear(handle)
        count = 0
        ordered.clear()
    }
    func drainOrdered() {
        // Out of the way while `put` is called.
        var ordered = OrderedWrites()
        swap(&ordered, &self.ordered)
        ordered.drain(into: self)
        swap(&ordered, &self.ordered)
    }
    func put(_ key: [UInt8], _ value: [UInt8]) {
        count += 1
        key.withUnsafeBytes { k in
            value.withUnsafeBytes { v in
                rocksdb_writebatch_put(handle, k.chars, k.count, v.chars, v.count)
            }
        }
    }
    func put(_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        count += 1
        rocksdb_writebatch_put(handle, key.chars, key.count, value.chars, value.count)
    }
    func put(_ key: [UInt8], _ value: Bytes) {
        count += 1
        key.withUnsafeBytes { k in
            value.withUnsafeBytes { v in
                rocksdb_writebatch_put(handle, k.chars, k.count, v.chars, v.count)
            }
        }
    }
    func delete(_ key: UnsafeRawBufferPointer) {
        count += 1
        rocksdb_writebatch_delete(handle, key.chars, key.count)
    }
    func delete(_ key: [UInt8]) {
        count += 1
        key.withUnsafeBytes { rocksdb_writebatch_delete(handle, $0.chars, $0.count) }
    }
    /// `end` exclusive.
    func deleteRange(_ first: [UInt8], _ end: [UInt8]) {
        count += 1
        first.withUnsafeBytes { a in
            end.withUnsafeBytes { b in
                rocksdb_writebatch_delete_range(handle, a.chars, a.count, b.chars, b.count)
            }
        }
    }
}

final class Cursor {
    private let database: RocksDatabase
    private let snapshot: RocksDatabase.Snapshot?
    private let options: OpaquePointer
    private let iterator: OpaquePointer
    /// RocksDB keeps the pointer.
    private let end: UnsafeMutableRawBufferPointer

    fileprivate init(
        _ database: RocksDatabase, _ db: OpaquePointer, end: [UInt8]?,
        snapshot: RocksDatabase.Snapshot?, fillsCache: Bool
    ) {
        database.began()
        self.database = database
        self.snapshot = snapshot
        options = rocksdb_readoptions_create()
        rocksdb_readoptions_set_verify_checksums(options, 1)
        if !fillsCache { rocksdb_readoptions_set_fill_cache(options, 0) }
        if let snapshot { rocksdb_readoptions_set_snapshot(options, snapshot.handle) }
        if let end {
            self.end = .allocate(byteCount: end.count, alignment: 1)
            self.end.copyBytes(from: end)
            rocksdb_readoptions_set_total_order_seek(options, 1)
            rocksdb_readoptions_set_iterate_upper_bound(
                options, UnsafeRawBufferPointer(self.end).chars, end.count)
        } else {
            self.end = .init(start: nil, count: 0)
            rocksdb_readoptions_set_prefix_same_as_start(options, 1)
        }
        iterator = rocksdb_create_iterator(db, options)
    }
    deinit {
        rocksdb_iter_destroy(iterator)
        rocksdb_readoptions_destroy(options)
        end.deallocate()
        database.ended()
    }

    var isValid: Bool { rocksdb_iter_valid(iterator) != 0 }
    func next() { rocksdb_iter_next(iterator) }
    func seek(_ key: [UInt8]) {
        key.withUnsafeBytes { rocksdb_iter_seek(iterator, $0.chars, $0.count) }
    }
    /// Until the next move.
    var key: UnsafeRawBufferPointer {
        var count = 0
        let bytes = rocksdb_iter_key(iterator, &count)
        return UnsafeRawBufferPointer(start: bytes, count: count)
    }
    var value: UnsafeRawBufferPointer {
        var count = 0
        let bytes = rocksdb_iter_value(iterator, &count)
        return UnsafeRawBufferPointer(start: bytes, count: count)
    }
    /// An invalid cursor is at the end, or failed: to be asked whenever a walk ended.
    func check() throws(StorageError) {
        try RocksDatabase.checked { rocksdb_iter_get_error(iterator, $0) }
    }
}

extension UnsafeRawBufferPointer {
    fileprivate var chars: UnsafePointer<CChar>? { baseAddress?.assumingMemoryBound(to: CChar.self) }
}

/// A row's key without its last eight bytes; other keys have no prefix.
private func keyPrefixTransform() -> OpaquePointer? {
    rocksdb_slicetransform_create(
        nil, { _ in },
        { _, key, length, prefixLength in
            prefixLength?.pointee = length - StoreFormat.revisionBytes
            return UnsafeMutablePointer(mutating: key)
        },
        { _, key, length in
            guard let key, length > 5 + StoreFormat.revisionBytes else { return 0 }
            return UInt8(bitPattern: key[0]) == StoreFormat.rowTag ? 1 : 0
        },
        { _, _, _ in 0 },
        { _ in keyPrefixName })
}
// Part of the format: RocksDB writes it into its files and ignores filters of another name.
nonisolated(unsafe) private let keyPrefixName: UnsafePointer<CChar>? = {
    let name = Array("polder.key-without-revision.1".utf8CString)
    let memory = UnsafeMutablePointer<CChar>.allocate(capacity: name.count)
    memory.initialize(from: name, count: name.count)
    return UnsafePointer(memory)
}()
