import Glibc
import Primitives
import Synchronization
import Testing

@testable import Storage

/// A log whose appends wait for their durability.
private final class Harness {
    final class Seen: Sendable {
        let durable = Mutex<UInt64>(0)
        let failure = Mutex<StorageError?>(nil)
        let reserve = Mutex<Bool>(true)
    }
    let log: WriteAheadLog
    let restored: [GroupID: RestoredLog]
    let seen = Seen()
    var ticket: UInt64 = 0

    init(
        _ path: String, segmentBytes: Int = 1 << 16, identity: NodeIdentity = identity,
        calls: LogWriter.Calls = .init()
    ) throws(StorageError) {
        var options = WriteAheadLog.Options()
        options.segmentBytes = segmentBytes
        let seen = self.seen
        let handlers = WriteAheadLog.Handlers(
            onDurable: { ticket in seen.durable.withLock { $0 = ticket.rawValue } },
            onFailure: { error in seen.failure.withLock { $0 = error } },
            onReserve: { has in seen.reserve.withLock { $0 = has } })
        (log, restored) = try WriteAheadLog.open(
            directory: path, identity: identity, options: options, handlers: handlers, calls: calls)
    }

    func append(_ records: [LogRecord]) {
        ticket += 1
        log.append(records, ticket: Ticket(ticket))
        while seen.durable.withLock({ $0 }) < ticket, seen.failure.withLock({ $0 }) == nil { usleep(20) }
    }
}

private func accept(_ g: UInt32, _ slot: UInt64, _ payload: String, round: UInt64 = 1) -> LogRecord {
    let ballot = Ballot(round: round, node: NodeID(1))
    return .accept(
        group(g), Slot(slot), ballot,
        LogEntry(term: ballot, number: slot, kind: .normal, payload: Bytes(payload)))
}
private func promise(_ g: UInt32, _ round: UInt64) -> LogRecord {
    .promise(group(g), Ballot(round: round, node: NodeID(1)))
}
private func segments(_ path: String) throws -> [String] {
    try Posix.names(in: path).filter { $0.hasSuffix(".wal") }
}

@Suite struct WriteAheadLogTests {
    @Test func `what was durable is read back`() throws {
        let dir = Scratch(), path = dir.path + "/wal"
        let first = try Harness(path)
        #expect(first.restored.isEmpty)
        first.append([promise(1, 3), accept(1, 1, "a", round: 3), accept(1, 2, "b", round: 3)])
        first.append([accept(2, 1, "x"), accept(1, 2, "B", round: 4)])
        first.append([accept(1, 3, "c", round: 4), .truncate(group(1), Slot(1))])
        first.log.close()

        for _ in 0..<2 {
            let again = try Harness(path)
            let one = try #require(again.restored[group(1)])
            #expect(one.promised.round == 4)
            #expect(one.truncatedThrough == Slot(1))
            #expect(one.accepted.map(\.slot) == [Slot(2), Slot(3)])
            #expect(one.accepted.map(\.entry.payload) == ["B", "c"])
            #expect(again.restored[group(2)]?.accepted.map(\.entry.payload) == ["x"])
            again.log.close()
        }
    }

    @Test func `who appends may write and sync himself, while the log is idle and its disk fast`() throws {
        let dir = Scratch(), path = dir.path + "/wal"
        let isSlow = Atomic<Bool>(false)
        var calls = LogWriter.Calls()
        calls.sync = { _ in
            if isSlow.load(ordering: .relaxed) { usleep(20_000) }
            return 0
        }
        let first = try Harness(path, calls: calls)
        // A disk counts as slow until some syncs have been fast, and again after a slow one.
        var slot: UInt64 = 0
        func append() throws -> Bool {
            slot += 1
            first.ticket += 1
            let records = [accept(1, slot, "x\(slot)")]
            if try first.log.appendNow(records, ticket: Ticket(first.ticket)) { return true }
            first.ticket -= 1
            first.append(records)
            // It may still be on its way to its next wait.
            usleep(2000)
            return false
        }
        var direct = 0
        for _ in 0..<200 where direct < 20 { if try append() { direct += 1 } }
        #expect(direct == 20)
        #expect(first.log.metrics().syncs >= slot)
        isSlow.store(true, ordering: .relaxed)
        while try append() {}
        let refused = try append()
        #expect(!refused)
        isSlow.store(false, ordering: .relaxed)
        // More than a write and a sync.
        first.ticket += 1
        let cut = try first.log.appendNow([.truncate(group(1), Slot(1))], ticket: Ticket(first.ticket))
        #expect(!cut)
        first.log.close()
        let again = try Harness(path)
        #expect(again.restored[group(1)]?.accepted.map(\.slot) == (1...slot).map { Slot($0) })
        again.log.close()
    }

    @Test func `a batch cut is a torn tail and the rest stays`() throws {
        let dir = Scratch(), path = dir.path + "/wal"
        let log = try Harness(path, segmentBytes: 1 << 12)
        log.append([accept(1, 1, "kept")])
        let before = Int(log.log.metrics().appendedBytes)
        log.append([accept(1, 2, "perhaps lost")])
        let size = Int(log.log.metrics().appendedBytes) - before
        log.log.close()
        let name = try #require(try segments(path).last)
        let whole = try Posix.readFile(path + "/" + name)
        // The batches follow header and checkpoint, which is as long as an empty batch here.
        let start = LogFormat.headerBytes + LogFormat.batchHeaderBytes + before
        for cut in stride(from: 0, to: size, by: 3) {
            let copy = dir.path + "/copy"
            for truncates in [true, false] {
                try Posix.makeDirectory(copy)
                var bytes = whole
                if truncates { bytes.removeSubrange((start + cut)...) } else {
                    for i in (start + cut)..<bytes.count { bytes[i] = 0 }
                }
                try Scratch.write(bytes, copy + "/" + name)
                let again = try Harness(copy, segmentBytes: 1 << 12)
                let payloads = again.restored[group(1)]?.accepted.map(\.entry.payload)
                if bytes.prefix(start + size) == whole.prefix(start + size) || payloads?.count == 2 {
                    #expect(payloads == ["kept", "perhaps lost"])
                } else {
                    #expect(payloads == ["kept"])
                }
                again.append([accept(1, 2, "new")])
                again.log.close()
                let third = try Harness(copy, segmentBytes: 1 << 12)
                #expect(third.restored[group(1)]?.accepted.map(\.entry.payload) == ["kept", "new"])
                third.log.close()
                Scratch.remove(copy)
            }
        }
    }

    @Test func `damage before something that was synced is refused with its place`() throws {
        let dir = Scratch(), path = dir.path + "/wal"
        let log = try Harness(path, segmentBytes: 1 << 12)
        for slot in 1...3 { log.append([accept(1, UInt64(slot), "entry \(slot)")]) }
        let size = Int(log.log.metrics().appendedBytes)
        log.log.close()
        let name = try #require(try segments(path).last)
        let whole = try Posix.readFile(path + "/" + name)
        let start = LogFormat.headerBytes + LogFormat.batchHeaderBytes
        var refused = 0
        for offset in stride(from: 0, to: start + size, by: 3) {
            var bytes = whole
            bytes[offset] ^= 0x40
            try Scratch.write(bytes, path + "/" + name)
            let lastBatch = start + size * 2 / 3
            do {
                let again = try Harness(path, segmentBytes: 1 << 12)
                // Only the last batch is not vouched for by another one.
                #expect(offset >= lastBatch)
                #expect((again.restored[group(1)]?.accepted.count ?? 0) >= 2)
                again.log.close()
                for other in try segments(path) where other != name { unlink(path + "/" + other) }
            } catch let error as StorageError {
                refused += 1
                #expect(offset < lastBatch)
                switch error {
                case .damaged(let file, _, _): #expect(file.hasSuffix(name))
                case .newer: #expect((8..<12).contains(offset))
                default: Issue.record(error)
                }
            }
        }
        #expect(refused > 10)
    }

    @Test func `a segment that lost its synced end is refused, as is a missing one`() throws {
        let dir = Scratch(), path = dir.path + "/wal"
        let log = try Harness(path, segmentBytes: 1 << 12)
        for slot in 1...30 { log.append([accept(1, UInt64(slot), String(repeating: "x", count: 400))]) }
        log.log.close()
        let names = try segments(path)
        try #require(names.count >= 3)
        let file = path + "/" + names[0], whole = try Posix.readFile(path + "/" + names[0])
        try Scratch.write(Array(whole[..<2000]), file)
        #expect(throws: StorageError.self) { try Harness(path, segmentBytes: 1 << 12) }
        try Scratch.write(whole, file)
        unlink(path + "/" + names[1])
        #expect {
            try Harness(path, segmentBytes: 1 << 12)
        } throws: { "\($0)".contains("missing") }
    }

    @Test func `segments go when nothing in them is live, and promises outlive them`() throws {
        let dir = Scratch(), path = dir.path + "/wal"
        let log = try Harness(path, segmentBytes: 1 << 13)
        log.append([promise(1, 7), promise(2, 9), accept(2, 1, "old")])
        for slot in 1...100 { log.append([accept(1, UInt64(slot), String(repeating: "x", count: 500))]) }
        let full = log.log.metrics().segments
        #expect(full > 5)
        log.append([.truncate(group(1), Slot(99))])
        // Group 2's accept in the first segment still lives.
        log.append([accept(1, 101, "y")])
        #expect(log.log.metrics().segments == full)
        log.append([.truncate(group(2), Slot(1))])
        log.append([accept(1, 102, "z")])
        #expect(log.log.metrics().segments <= 2)
        log.log.close()
        #expect(try segments(path).count <= 2)
        let again = try Harness(path, segmentBytes: 1 << 13)
        #expect(again.restored[group(1)]?.promised.round == 7)
        #expect(again.restored[group(2)]?.promised.round == 9)
        #expect(again.restored[group(2)]?.truncatedThrough == Slot(1))
        #expect(again.restored[group(1)]?.accepted.map(\.slot.rawValue) == [100, 101, 102])
        again.log.close()
    }

    @Test func `copies taken at arbitrary moments hold all that was durable before`() throws {
        let dir = Scratch(), path = dir.path + "/wal"
        let log = try Harness(path, segmentBytes: 1 << 13)
        var dice = Dice(state: 77)
        var next: UInt64 = 1, truncated: UInt64 = 0
        for round in 0..<60 {
            var records: [LogRecord] = []
            for _ in 0..<Int.random(in: 1...4, using: &dice) {
                let payload = String(repeating: "p", count: .random(in: 0...900, using: &dice))
                records.append(accept(1, next, payload))
                next += 1
            }
            if round % 7 == 6 {
                truncated = next - 3
                records.append(.truncate(group(1), Slot(truncated)))
            }
            log.append(records)
            let copy = dir.path + "/copy"
            try Scratch.copy(path, copy)
            let again = try Harness(copy, segmentBytes: 1 << 13)
            let found = try #require(again.restored[group(1)])
            #expect(found.truncatedThrough.rawValue == truncated)
            #expect(found.accepted.map(\.slot.rawValue) == Array((truncated + 1)..<next))
            again.log.close()
            Scratch.remove(copy)
        }
        log.log.close()
    }

    @Test func `an entry larger than a segment is kept`() throws {
        let dir = Scratch(), path = dir.path + "/wal"
        let log = try Harness(path, segmentBytes: 1 << 12)
        let large = String(repeating: "L", count: 40_000)
        log.append([accept(1, 1, "a")])
        log.append([accept(1, 2, large), accept(1, 3, "b")])
        log.append([accept(1, 4, "c")])
        log.log.close()
        let again = try Harness(path, segmentBytes: 1 << 12)
        #expect(again.restored[group(1)]?.accepted.map(\.entry.payload.count) == [1, 40_000, 1, 1])
        again.log.close()
    }

    @Test func `freed segments are written again, and few are kept`() throws {
        let dir = Scratch(), path = dir.path + "/wal"
        let log = try Harness(path, segmentBytes: 1 << 12)
        let text = String(repeating: "x", count: 1500)
        for slot in 1...60 {
            log.append([accept(1, UInt64(slot), text)])
            if slot % 10 == 0 { log.append([.truncate(group(1), Slot(UInt64(slot - 1)))]) }
        }
        log.log.close()
        let names = try Posix.names(in: path)
        #expect(names.filter { $0.hasPrefix("spare-") }.count <= 3)
        #expect(names.filter { $0.hasPrefix("dead-") }.isEmpty)
        let again = try Harness(path, segmentBytes: 1 << 12)
        #expect(again.restored[group(1)]?.accepted.map(\.slot) == [Slot(60)])
        again.log.close()
    }

    @Test func `what a crash left of spare and dead files goes, unless it is a whole spare`() throws {
        let dir = Scratch(), path = dir.path + "/wal"
        let first = try Harness(path)
        first.append([accept(1, 1, "a")])
        first.log.close()
        for name in ["spare", "spare-0", "spare-77", "dead-3"] {
            try Scratch.write([1, 2, 3], path + "/" + name)
        }
        let again = try Harness(path)
        #expect(again.restored[group(1)]?.accepted.map(\.entry.payload) == ["a"])
        again.append([accept(1, 2, "b")])
        let names = try Posix.names(in: path)
        let gone = ["spare", "spare-0", "spare-77", "dead-3"]
        #expect(names.allSatisfy { !gone.contains($0) })
        again.log.close()
    }

    @Test func `a whole spare is written to after a restart, and one without segments beside it is not`() throws {
        func inode(_ path: String) -> UInt64 {
            var status = stat()
            return stat(path, &status) == 0 ? UInt64(status.st_ino) : 0
        }
        let dir = Scratch(), path = dir.path + "/wal"
        let first = try Harness(path)
        first.append([accept(1, 1, "a")])
        first.log.close()
        let spare = try #require(try Posix.names(in: path).first { $0.hasPrefix("spare-") })
        let before = inode(path + "/" + spare)
        let again = try Harness(path)
        again.append([accept(1, 2, "b")])
        #expect(inode(path + "/" + (try #require(try segments(path).last))) == before)
        again.log.close()
        for name in try segments(path) { unlink(path + "/" + name) }
        let left = try #require(try Posix.names(in: path).first { $0.hasPrefix("spare-") })
        // Held, so that its number is not given to another file.
        let fd = try Posix.open(path + "/" + left, O_RDONLY), old = inode(path + "/" + left)
        let anew = try Harness(path)
        #expect(anew.restored.isEmpty)
        for name in try Posix.names(in: path) { #expect(inode(path + "/" + name) != old) }
        anew.log.close()
        close(fd)
    }

    @Test func `entries that end in zeros come back, and damage before them is seen`() throws {
        let dir = Scratch(), path = dir.path + "/wal", zeros = String(repeating: "\0", count: 3 << 20)
        let log = try Harness(path, segmentBytes: 16 << 20)
        for slot in 1...3 { log.append([accept(1, UInt64(slot), zeros)]) }
        log.log.close()
        let name = try #require(try segments(path).last), whole = try Posix.readFile(path + "/" + name)
        let again = try Harness(path, segmentBytes: 16 << 20)
        #expect(again.restored[group(1)]?.accepted.map(\.entry.payload.count) == [3 << 20, 3 << 20, 3 << 20])
        again.log.close()
        for other in try segments(path) where other != name { unlink(path + "/" + other) }
        var damaged = whole
        damaged[LogFormat.headerBytes + LogFormat.batchHeaderBytes + 3 << 20] ^= 1
        try Scratch.write(damaged, path + "/" + name)
        #expect {
            try Harness(path, segmentBytes: 16 << 20)
        } throws: { "\($0)".contains("synced through") }
    }

    @Test func `after a failed sync nothing is durable any more`() throws {
        let dir = Scratch()
        let calls = LogWriter.Calls(sync: { fd in
            let fails = budget.withLock { left in
                left -= 1
                return left < 0
            }
            if fails { errno = EIO }
            return fails ? -1 : fdatasync(fd)
        })
        let log = try Harness(dir.path + "/wal", calls: calls)
        budget.withLock { $0 = 1 }
        log.append([accept(1, 1, "a")])
        #expect(log.seen.failure.withLock { $0 } == nil)
        log.append([accept(1, 2, "b")])
        #expect(log.seen.failure.withLock { $0 } != nil)
        budget.withLock { $0 = 100 }
        log.log.append([accept(1, 3, "c")], ticket: Ticket(99))
        usleep(20_000)
        #expect(log.seen.durable.withLock { $0 } == 1)
    }

    /// `mount -t tmpfs -o size=512k none DIR; POLDER_SMALL_DISK=DIR swift test --filter StorageTests`
    @Test(.enabled(if: getenv("POLDER_SMALL_DISK") != nil))
    func `a full disk is told before a write fails, and nothing durable is lost`() throws {
        let path = (getenv("POLDER_SMALL_DISK").map { String(cString: $0) } ?? "") + "/wal"
        defer { Scratch.remove(path) }
        let log = try Harness(path)
        var slot: UInt64 = 0
        while log.seen.failure.withLock({ $0 }) == nil {
            slot += 1
            log.append([accept(1, slot, String(repeating: "x", count: 1000))])
        }
        #expect(log.seen.reserve.withLock { !$0 })
        if case .noSpace? = log.seen.failure.withLock({ $0 }) {} else { Issue.record("not noSpace") }
        let durable = log.seen.durable.withLock { $0 }
        #expect(durable > 200)
        log.log.close()
        #expect(throws: StorageError.self) { try Harness(path) }
    }

    @Test func `a foreign log is refused`() throws {
        let dir = Scratch(), path = dir.path + "/wal"
        try Harness(path).log.close()
        var other = identity
        other.node = NodeID(3)
        #expect {
            try Harness(path, identity: other)
        } throws: {
            if case .foreign? = $0 as? StorageError { true } else { false }
        }
    }

    @Test func `the bytes of header and batch are these`() {
        let header = LogFormat.encode(
            .init(
                segment: 0x0102, cluster: 0xAABB_CCDD_EEFF_0011, region: RegionID(3), node: NodeID(4),
                previousEnd: 0x1000))
        var writer = ByteWriter()
        let records: [LogRecord] = [
            promise(1, 5), accept(1, 300, "hi", round: 5), .truncate(group(1), Slot(7)),
        ]
        LogFormat.append(
            records[...], at: .init(segment: 0x0102, offset: 64),
            synced: .init(segment: 0x0101, offset: 0x1000), to: &writer)
        func hex(_ bytes: [UInt8]) -> String {
            bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
        }
        #expect(hex(header) == goldenHeader)
        #expect(hex(writer.bytes) == goldenBatch)
        let file = header + writer.bytes
        let batch = LogFormat.batch(in: file, at: 64, segment: 0x0102)
        #expect(batch?.count == 3)
        #expect(batch?.end == file.count)
        #expect(LogFormat.batch(in: file, at: 64, segment: 0x0103) == nil)
    }
}

private let budget = Mutex<Int>(1000)
private let goldenHeader =
    "504f4c444552574c010000004875e52902010000000000001100ffeeddccbbaa"
    + "0300040000000000001000000000000000000000000000000000000000000000"
private let goldenBatch =
    "504c4442f096aad0180000000300000001010000000000000010000000000000"
    + "0101010501020101ac0205010501ac020202686903010107"
