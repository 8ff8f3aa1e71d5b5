import Glibc
import Primitives

@testable import BoltFile

/// A file without a name: it goes when the test does.
final class ScratchFile {
    let descriptor: Int32

    init() {
        let template = Array("/tmp/polder-bolt-XXXXXX".utf8CString)
        var name = template
        descriptor = mkstemp(&name)
        unlink(name)
    }
    deinit { close(descriptor) }

    var bytes: [UInt8] {
        get {
            (try? FileAccess.read(
                Int((try? FileAccess.size(of: descriptor)) ?? 0), from: descriptor, at: 0)) ?? []
        }
        set {
            ftruncate(descriptor, 0)
            newValue.withUnsafeBytes { try? FileAccess.write($0, to: descriptor, at: 0) }
        }
    }
}

struct Generator: RandomNumberGenerator {
    var state: SplitMix
    init(_ seed: UInt64) { state = SplitMix(seed: seed) }
    mutating func next() -> UInt64 { state.next() }
}

typealias Contents = [(bucket: Bytes, items: [(key: Bytes, value: Bytes)])]

func write(_ contents: Contents, to file: ScratchFile) throws -> UInt64 {
    let writer = BoltWriter(descriptor: file.descriptor)
    for (bucket, items) in contents {
        try writer.begin(bucket)
        for (key, value) in items { try writer.put(key, value) }
    }
    return try writer.finish()
}

func read(_ file: ScratchFile) throws -> Contents {
    let reader = try BoltReader(descriptor: file.descriptor)
    var found: Contents = []
    for name in try reader.buckets() {
        var items: [(key: Bytes, value: Bytes)] = []
        if let cursor = try reader.bucket(name) {
            while let item = try cursor.next() { items.append((item.key, item.value)) }
        }
        found.append((name, items))
    }
    return found
}

func isSame(_ a: Contents, _ b: Contents) -> Bool {
    a.elementsEqual(b) { x, y in
        x.bucket == y.bucket && x.items.elementsEqual(y.items) { $0.key == $1.key && $0.value == $1.value }
    }
}

/// Keys in order, of the given count; values of up to `valueBytes`.
func items(_ count: Int, valueBytes: Int, keyBytes: Int = 12, seed: UInt64) -> [(key: Bytes, value: Bytes)] {
    var luck = Generator(seed)
    return (0..<count).map { i in
        let digits = String(i)
        let number = String(repeating: "0", count: 8 - digits.count) + digits
        let key = number + String(repeating: "k", count: Int.random(in: 0...max(0, keyBytes - 8), using: &luck))
        let length = Int.random(in: 0...valueBytes, using: &luck)
        return (Bytes(key), Bytes([UInt8](repeating: UInt8(truncatingIfNeeded: i), count: length)))
    }
}
