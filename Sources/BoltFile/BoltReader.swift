package import Primitives

/// Reads a bbolt file: which buckets there are, and their keys in order.
///
/// Everything in the file may be hostile: sizes and offsets are checked before they are used, each page
/// is visited at most once by a walk, and a walk's memory is one page for each level.
package final class BoltReader {
    /// A page and its overflow. bbolt puts several values into one run of pages, each as large as a
    /// request of etcd may be.
    package static let pageBytesMax = 256 << 20
    /// Branches hold keys only, and one of each level is in memory.
    static let branchBytesMax = 1 << 20
    static let depthMax = 48

    package let meta: BoltMeta
    let descriptor: Int32
    /// Of the database: a trailer after it (etcd's digest) does not count.
    package let bytes: UInt64

    /// `limit`: how much of the file is the database; nil: all of it. The descriptor stays the caller's.
    package init(descriptor: Int32, limit: UInt64? = nil) throws(BoltError) {
        self.descriptor = descriptor
        bytes = min(limit ?? .max, try FileAccess.size(of: descriptor))
        meta = try Self.findMeta(descriptor, bytes)
        let fit = bytes / UInt64(meta.pageBytes)
        guard meta.pages >= 3, meta.pages <= fit else {
            throw .damaged("it names \(meta.pages) pages, and has \(fit)")
        }
    }

    private static func findMeta(_ descriptor: Int32, _ bytes: UInt64) throws(BoltError) -> BoltMeta {
        func meta(at offset: UInt64) throws(BoltError) -> BoltMeta? {
            guard offset + 80 <= bytes,
                let page = try FileAccess.read(80, from: descriptor, at: offset)
            else { return nil }
            return page.withUnsafeBytes {
                BoltMeta(UnsafeRawBufferPointer(rebasing: $0[BoltFormat.pageHeaderBytes...]))
            }
        }
        let first = try meta(at: 0)
        // The second tells its place only by being there.
        var sizes = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
        if let first { sizes = [first.pageBytes] }
        for size in sizes {
            guard let second = try meta(at: UInt64(size)), second.pageBytes == size else { continue }
            guard let first, first.transaction > second.transaction else { return second }
            return first
        }
        guard let first else { throw .damaged("neither of its two meta pages is valid") }
        return first
    }

    /// The top level: names of buckets (their values are not keys of anybody).
    package func buckets() throws(BoltError) -> [Bytes] {
        let cursor = BoltCursor(self, root: meta.root)
        var names: [Bytes] = []
        while let item = try cursor.next() {
            if item.isBucket { names.append(item.key) }
            guard names.count <= 10_000 else { throw .damaged("more than 10000 buckets") }
        }
        return names
    }

    /// The keys of a top-level bucket; nil: there is none of that name.
    package func bucket(_ name: Bytes) throws(BoltError) -> BoltCursor? {
        let cursor = BoltCursor(self, root: meta.root)
        while let item = try cursor.next() {
            if item.isBucket, item.key == name { return try self.cursor(of: item) }
        }
        return nil
    }

    /// The keys of the bucket that `item` is.
    package func cursor(of item: BoltItem) throws(BoltError) -> BoltCursor {
        guard item.isBucket, item.value.count >= BoltFormat.bucketHeaderBytes else {
            throw .damaged("a bucket's header has \(item.value.count) bytes")
        }
        let root: UInt64 = item.value.withUnsafeBytes { BoltFormat.get($0, 0) }
        if root != 0 { return BoltCursor(self, root: root) }
        return try BoltCursor(
            self, inline: item.value[BoltFormat.bucketHeaderBytes..<item.value.count])
    }

    func page(_ id: UInt64) throws(BoltError) -> BoltPage {
        guard id >= 2, id < meta.pages else { throw .damaged("page \(id) of \(meta.pages)") }
        let size = UInt64(meta.pageBytes)
        func short() -> BoltError { .damaged("the file ends within page \(id)") }
        guard var bytes = try FileAccess.read(meta.pageBytes, from: descriptor, at: id * size) else {
            throw short()
        }
        let overflow: UInt32 = bytes.withUnsafeBytes { BoltFormat.get($0, 12) }
        if overflow > 0 {
            let kind: UInt16 = bytes.withUnsafeBytes { BoltFormat.get($0, 8) }
            let most = kind == BoltFormat.PageKind.leaf ? Self.pageBytesMax : Self.branchBytesMax
            let pages = UInt64(overflow) + 1
            guard pages <= meta.pages - id else { throw .damaged("page \(id) runs on past the end") }
            guard pages * size <= UInt64(most) else {
                throw .damaged("page \(id) has \(pages * size) bytes")
            }
            guard let all = try FileAccess.read(Int(pages * size), from: descriptor, at: id * size)
            else { throw short() }
            bytes = all
        }
        return try BoltPage(Bytes(bytes), id: id, isInline: false)
    }
}

/// A key with its value, or a bucket inside of a bucket.
package struct BoltItem: Sendable {
    package let key: Bytes
    package let value: Bytes
    package let isBucket: Bool
}

/// A branch or a leaf, its header checked.
struct BoltPage {
    let bytes: Bytes
    let id: UInt64
    let isLeaf: Bool
    let count: Int

    init(_ bytes: Bytes, id: UInt64, isInline: Bool) throws(BoltError) {
        let place = isInline ? "an inline page" : "page \(id)"
        guard bytes.count >= BoltFormat.pageHeaderBytes else {
            throw .damaged("\(place) has \(bytes.count) bytes")
        }
        let (own, kind, count) = bytes.withUnsafeBytes { raw in
            (
                BoltFormat.get(raw, 0) as UInt64, BoltFormat.get(raw, 8) as UInt16,
                BoltFormat.get(raw, 10) as UInt16
            )
        }
        guard isInline || own == id else { throw .damaged("\(place) says that it is page \(own)") }
        switch kind {
        case BoltFormat.PageKind.leaf: isLeaf = true
        case BoltFormat.PageKind.branch where !isInline: isLeaf = false
        default: throw .damaged("\(place) is of kind \(kind)")
        }
        let element = isLeaf ? BoltFormat.leafElementBytes : BoltFormat.branchElementBytes
        guard Int(count) * element <= bytes.count - BoltFormat.pageHeaderBytes else {
            throw .damaged("\(place) has \(count) elements in \(bytes.count) bytes")
        }
        guard isLeaf || count > 0 else { throw .damaged("\(place) is a branch without children") }
        self.bytes = bytes
        self.id = id
        self.count = Int(count)
    }

    func item(_ index: Int) throws(BoltError) -> BoltItem {
        let at = BoltFormat.pageHeaderBytes + index * BoltFormat.leafElementBytes
        let (flags, offset, keyBytes, valueBytes) = bytes.withUnsafeBytes { raw in
            (
                BoltFormat.get(raw, at) as UInt32, Int(BoltFormat.get(raw, at + 4) as UInt32),
                Int(BoltFormat.get(raw, at + 8) as UInt32), Int(BoltFormat.get(raw, at + 12) as UInt32)
            )
        }
        // 32 bits each: the sums do not overflow.
        let start = at + offset
        guard offset >= BoltFormat.leafElementBytes, keyBytes > 0,
            start + keyBytes + valueBytes <= bytes.count
        else { throw .damaged("element \(index) of page \(id) lies outside of it") }
        return BoltItem(
            key: bytes[start..<(start + keyBytes)],
            value: bytes[(start + keyBytes)..<(start + keyBytes + valueBytes)],
            isBucket: flags & BoltFormat.bucketFlag != 0)
    }

    func child(_ index: Int) throws(BoltError) -> UInt64 {
        let at = BoltFormat.pageHeaderBytes + index * BoltFormat.branchElementBytes
        return bytes.withUnsafeBytes { BoltFormat.get($0, at + 8) }
    }
}

/// Goes through the keys of one bucket, in order.
package final class BoltCursor {
    private let reader: BoltReader
    private var frames: [(page: BoltPage, index: Int)] = []
    private var nextRoot: UInt64?
    private var lastKey: Bytes?
    private var visited: UInt64 = 0

    init(_ reader: BoltReader, root: UInt64) {
        self.reader = reader
        nextRoot = root
    }

    init(_ reader: BoltReader, inline: Bytes) throws(BoltError) {
        self.reader = reader
        frames = [(try BoltPage(inline, id: 0, isInline: true), 0)]
    }

    /// nil: that was all.
    package func next() throws(BoltError) -> BoltItem? {
        if let root = nextRoot {
            nextRoot = nil
            try enter(root)
        }
        while let (page, index) = frames.last {
            if index == page.count {
                frames.removeLast()
                continue
            }
            frames[frames.count - 1].index += 1
            if page.isLeaf {
                let item = try page.item(index)
                // Also what keeps a walk finite: no page comes twice if keys only rise.
                if let lastKey, lastKey >= item.key {
                    throw .damaged("the keys of page \(page.id) are out of order")
                }
                lastKey = item.key
                return item
            }
            try enter(page.child(index))
        }
        return nil
    }

    private func enter(_ id: UInt64) throws(BoltError) {
        guard frames.count < BoltReader.depthMax else {
            throw .damaged("the tree is deeper than \(BoltReader.depthMax) levels")
        }
        visited += 1
        // Empty leaves come without keys: the count of pages bounds them.
        guard visited <= reader.meta.pages, !frames.contains(where: { $0.page.id == id }) else {
            throw .damaged("page \(id) is reached twice")
        }
        frames.append((try reader.page(id), 0))
    }
}
