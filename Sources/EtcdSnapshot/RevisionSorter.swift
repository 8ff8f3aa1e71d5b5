package import BoltFile
import Glibc
package import Primitives

/// Puts versions that come in the order of their keys into the order of their revisions: in memory as
/// long as they fit, else in sorted runs in a temporary file, which are merged.
package final class RevisionSorter {
    private static let headBytes = 16
    private static let mergeBytes = 64 << 10

    /// Of an empty file that may be read and written, made when it is needed.
    private let makeFile: () throws(BoltError) -> Int32
    private let bytesMax: Int
    private var file: Int32 = -1
    private var fileBytes: UInt64 = 0
    private var buffer: [UInt8] = []
    private var index: [Place] = []
    private var runs: [Run] = []
    /// Runs by their next record, the least first.
    private var heap: [Int] = []
    private var nextInMemory = 0
    private var isMerging = false

    private struct Place {
        let revision: UInt64
        let sub: UInt32
        let length: UInt32
        let start: Int
    }

    private struct Run {
        var at: UInt64
        let end: UInt64
        var buffer: [UInt8] = []
        var start = 0
        var revision: UInt64 = 0
        var sub: UInt32 = 0
    }

    package struct Record {
        package let revision: Int64
        package let sub: Int64
        package let payload: Bytes
    }

    package init(bytesMax: Int = 32 << 20, makeFile: @escaping () throws(BoltError) -> Int32) {
        self.bytesMax = bytesMax
        self.makeFile = makeFile
    }

    deinit { if file >= 0 { close(file) } }

    package var temporaryBytes: UInt64 { fileBytes }

    /// Before the first `next`. Revisions are positive.
    package func add(revision: Int64, sub: Int64, _ payload: [UInt8]) throws(BoltError) {
        invariant(!isMerging, "added to what is being read")
        if !index.isEmpty, buffer.count + payload.count + index.count * 32 > bytesMax { try writeRun() }
        index.append(
            Place(
                revision: UInt64(bitPattern: revision), sub: UInt32(truncatingIfNeeded: sub),
                length: UInt32(payload.count), start: buffer.count))
        buffer += payload
    }

    /// nil: that was all.
    package func next() throws(BoltError) -> Record? {
        if !isMerging { try beginMerge() }
        if runs.isEmpty {
            guard nextInMemory < index.count else { return nil }
            let place = index[nextInMemory]
            nextInMemory += 1
            return Record(
                revision: Int64(bitPattern: place.revision), sub: Int64(place.sub),
                payload: Bytes(buffer[place.start..<(place.start + Int(place.length))]))
        }
        guard let least = heap.first else { return nil }
        let record = try take(least)
        if try load(least) { sink(0) } else {
            let last = heap.removeLast()
            if !heap.isEmpty {
                heap[0] = last
                sink(0)
            }
        }
        return record
    }

    private func sortIndex() {
        index.sort { ($0.revision, $0.sub) < ($1.revision, $1.sub) }
    }

    // MARK: Runs

    private func writeRun() throws(BoltError) {
        if file < 0 { file = try makeFile() }
        sortIndex()
        let start = fileBytes
        var out: [UInt8] = []
        out.reserveCapacity(1 << 20)
        for place in index {
            withUnsafeBytes(of: place.revision) { out.append(contentsOf: $0) }
            withUnsafeBytes(of: place.sub) { out.append(contentsOf: $0) }
            withUnsafeBytes(of: place.length) { out.append(contentsOf: $0) }
            out += buffer[place.start..<(place.start + Int(place.length))]
            if out.count >= 1 << 20 { try write(&out) }
        }
        try write(&out)
        runs.append(Run(at: start, end: fileBytes))
        index.removeAll(keepingCapacity: true)
        buffer.removeAll(keepingCapacity: true)
    }

    private func write(_ bytes: inout [UInt8]) throws(BoltError) {
        var done = 0
        while done < bytes.count {
            let n = bytes.withUnsafeBytes {
                pwrite(file, $0.baseAddress?.advanced(by: done), bytes.count - done, off_t(fileBytes))
            }
            if n < 0 && errno == EINTR { continue }
            guard n > 0 else {
                let text = "cannot write a temporary file: \(String(cString: strerror(errno)))"
                throw errno == ENOSPC || errno == EDQUOT ? .noSpace(text) : .io(text)
            }
            done += n
            fileBytes += UInt64(n)
        }
        bytes.removeAll(keepingCapacity: true)
    }

    private func beginMerge() throws(BoltError) {
        isMerging = true
        if runs.isEmpty { return sortIndex() }
        if !index.isEmpty { try writeRun() }
        buffer = []
        index = []
        for i in runs.indices where try load(i) {
            heap.append(i)
            rise(heap.count - 1)
        }
    }

    /// Makes run `i`'s next record's head known; false: it is at its end.
    private func load(_ i: Int) throws(BoltError) -> Bool {
        guard try fill(i, Self.headBytes) else { return false }
        let start = runs[i].start
        (runs[i].revision, runs[i].sub) = runs[i].buffer.withUnsafeBytes {
            (
                $0.loadUnaligned(fromByteOffset: start, as: UInt64.self),
                $0.loadUnaligned(fromByteOffset: start + 8, as: UInt32.self)
            )
        }
        return true
    }

    private func take(_ i: Int) throws(BoltError) -> Record {
        let start = runs[i].start
        let length = Int(
            runs[i].buffer.withUnsafeBytes {
                $0.loadUnaligned(fromByteOffset: start + 12, as: UInt32.self)
            })
        guard try fill(i, Self.headBytes + length) else { throw .io("a temporary file is too short") }
        let from = runs[i].start + Self.headBytes
        let payload = Bytes(runs[i].buffer[from..<(from + length)])
        runs[i].start = from + length
        return Record(
            revision: Int64(bitPattern: runs[i].revision), sub: Int64(runs[i].sub), payload: payload)
    }

    /// At least `count` unread bytes in memory; false: there are not so many.
    private func fill(_ i: Int, _ count: Int) throws(BoltError) -> Bool {
        let have = runs[i].buffer.count - runs[i].start
        if have >= count { return true }
        runs[i].buffer.removeFirst(runs[i].start)
        runs[i].start = 0
        let left = runs[i].end - runs[i].at
        guard UInt64(count - have) <= left else { return false }
        let wanted = min(Int(left), max(Self.mergeBytes, count - have))
        var more = [UInt8](repeating: 0, count: wanted)
        var done = 0
        while done < wanted {
            let n = more.withUnsafeMutableBytes {
                pread(
                    file, $0.baseAddress?.advanced(by: done), wanted - done,
                    off_t(runs[i].at) + off_t(done))
            }
            if n < 0 && errno == EINTR { continue }
            guard n > 0 else { throw .io("cannot read a temporary file") }
            done += n
        }
        runs[i].at += UInt64(wanted)
        runs[i].buffer += more
        return true
    }

    // MARK: The heap

    private func precedes(_ a: Int, _ b: Int) -> Bool {
        (runs[a].revision, runs[a].sub) < (runs[b].revision, runs[b].sub)
    }

    private func rise(_ from: Int) {
        var i = from
        while i > 0, precedes(heap[i], heap[(i - 1) / 2]) {
            heap.swapAt(i, (i - 1) / 2)
            i = (i - 1) / 2
        }
    }

    private func sink(_ from: Int) {
        var i = from
        while true {
            var least = i
            for child in [2 * i + 1, 2 * i + 2] where child < heap.count {
                if precedes(heap[child], heap[least]) { least = child }
            }
            if least == i { return }
            heap.swapAt(i, least)
            i = least
        }
    }
}
