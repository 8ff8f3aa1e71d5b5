import CAllocations
import Glibc
import Primitives
import Storage
import Synchronization

// The rooms of the shell's disks: the log, and the store. Their times hang on the disk.

extension Room {
    static var storageRooms: [Room] {
        [
            Room("WAL append", per: "record, written and synced alone", warmUp: 20, operations: 100,
                waits: true, budget: .log, prepare: append),
            Room("store apply", per: "put of a batch of 32", units: 32, warmUp: 30, operations: 100,
                budget: .apply, prepare: apply),
            Room("store row", per: "row at a revision", budget: .storedRow, prepare: storedRow),
            Room("store range", per: "row of 500", units: 500, warmUp: 10, operations: 50,
                budget: .storedRange, prepare: storedRange),
        ]
    }

    private static let group = GroupID(keyspace: .standard, partition: PartitionID(1))

    private static func append() throws -> Step {
        let scratch = try ScratchFolder()
        let durable = Durable()
        var options = WriteAheadLog.Options()
        options.segmentBytes = 4 << 20
        let (log, _) = try WriteAheadLog.open(
            directory: scratch.path + "/wal",
            identity: NodeIdentity(
                cluster: 1, region: RegionID(1), regionName: "r1", node: NodeID(1)),
            options: options,
            handlers: .init(onDurable: { durable.reached($0) }, onFailure: { _ in durable.fail() }))
        let ballot = Ballot(round: 1, node: NodeID(1))
        var number: UInt64 = 0
        return Step(
            run: {
                number += 1
                let entry = LogEntry(term: ballot, number: number, kind: .normal, payload: value)
                log.append([.accept(group, Slot(number), ballot, entry)], ticket: Ticket(number))
                guard durable.wait(for: number) else { throw BenchmarkError("the log failed") }
            },
            elsewhere: { durable.counted },
            finish: {
                log.close()
                scratch.remove()
            })
    }

    private static func store() throws -> (Store, ScratchFolder) {
        let scratch = try ScratchFolder()
        return (try Store.open(scratch.path + "/store"), scratch)
    }

    /// The rows of a turn, and how far it is applied.
    private static func apply() throws -> Step {
        let (store, scratch) = try store()
        var revision: Int64 = 1
        return Step(
            run: {
                var changes: [StoreChange] = []
                changes.reserveCapacity(33)
                for n in 0..<32 {
                    revision += 1
                    changes.append(.putRow(.standard, row(n, revision: revision)))
                }
                changes.append(.applied(group, Slot(UInt64(revision))))
                try store.apply(changes)
            },
            finish: {
                store.close()
                scratch.remove()
            })
    }

    private static func filled() throws -> (Store, ScratchFolder) {
        let (store, scratch) = try store()
        try store.apply((0..<1000).map { .putRow(.standard, row($0, revision: Int64($0) + 2)) })
        return (store, scratch)
    }

    private static func storedRow() throws -> Step {
        let (store, scratch) = try filled()
        let wanted = key(500)
        return Step(
            run: {
                guard try store.row(wanted, at: Revision(1001), in: .standard) != nil else {
                    throw BenchmarkError("no row")
                }
            },
            finish: {
                store.close()
                scratch.remove()
            })
    }

    private static func storedRange() throws -> Step {
        let (store, scratch) = try filled()
        let query = RangeQuery(range: KeyRange(key: "bench/", end: "bench0"), limit: 500)
        return Step(
            run: {
                let result = try store.range(query, at: Revision(1001), in: .standard)
                guard result.rows.count == 500, result.count == 1000 else {
                    throw BenchmarkError("rows are missing")
                }
            },
            finish: {
                store.close()
                scratch.remove()
            })
    }
}

/// What the log's thread has reached, and what it has allocated: it says so in its own call.
private final class Durable: Sendable {
    private struct State {
        var ticket: UInt64 = 0
        var allocations: Int64 = 0
        var bytes: Int64 = 0
        var failed = false
    }
    private let state = Mutex(State())

    func reached(_ ticket: Ticket) {
        let allocations = polder_allocations(), bytes = polder_allocated_bytes()
        state.withLock {
            $0.ticket = ticket.rawValue
            $0.allocations = allocations
            $0.bytes = bytes
        }
    }
    func fail() { state.withLock { $0.failed = true } }
    var counted: (allocations: Int64, bytes: Int64) {
        state.withLock { ($0.allocations, $0.bytes) }
    }
    func wait(for ticket: UInt64) -> Bool {
        while true {
            let (reached, failed) = state.withLock { ($0.ticket, $0.failed) }
            if reached >= ticket || failed { return !failed }
            usleep(10)
        }
    }
}

/// A folder of its own, removed at the end.
private final class ScratchFolder {
    let path: String

    init() throws {
        var template = Array("/tmp/polder-micro-XXXXXX".utf8CString)
        let made = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) }
        }
        guard let made else { throw BenchmarkError("no folder in /tmp") }
        path = made
    }

    func remove() { ScratchFolder.remove(path) }

    private static func remove(_ path: String) {
        if let folder = opendir(path) {
            while let entry = readdir(folder) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name == "." || name == ".." { continue }
                if unlink(path + "/" + name) != 0 { remove(path + "/" + name) }
            }
            closedir(folder)
        }
        rmdir(path)
    }
}
