package import Primitives

/// Writes a whole bbolt file from front to back. Buckets come in order of their names, keys in order
/// within them. Held in memory: one page for each level of the current bucket's tree, the buckets'
/// headers, and a buffer of `bufferBytes`.
///
/// The file is valid after `finish`, and nothing before.
package final class BoltWriter {
    private static let bufferBytes = 1 << 20
    /// bbolt keeps a bucket inside its parent's page up to a quarter of a page.
    private static let inlineBytesMax = BoltFormat.pageBytes / 4

    private let descriptor: Int32
    private var buffer: [UInt8] = []
    private var written: UInt64
    /// 0 and 1 are the metas.
    private var nextPage: UInt64 = 2
    private var buckets: [(name: Bytes, value: [UInt8])] = []
    private var bucket: Bytes?
    private var leaf = LeafPage()
    /// From the leaves' parents upward.
    private var branches: [BranchPage] = []
    private var lastKey: Bytes?
    private var keysInBucket = 0

    private struct LeafPage {
        var elements: [(key: Bytes, value: Bytes, flags: UInt32)] = []
        var bytes = BoltFormat.pageHeaderBytes
    }
    private struct BranchPage {
        var elements: [(key: Bytes, page: UInt64)] = []
        var bytes = BoltFormat.pageHeaderBytes
    }

    /// Of an empty file that may be written; stays the caller's.
    package init(descriptor: Int32) {
        self.descriptor = descriptor
        written = 2 * UInt64(BoltFormat.pageBytes)
        buffer.reserveCapacity(Self.bufferBytes + 2 * BoltFormat.pageBytes)
    }

    /// What `finish` will make of it so far, about.
    package var bytesSoFar: UInt64 { written + UInt64(buffer.count) }

    // MARK: Buckets

    package func begin(_ name: Bytes) throws(BoltError) {
        try end()
        guard !name.isEmpty, name.count <= BoltFormat.keyBytesMax else {
            throw .misuse("a bucket's name has \(name.count) bytes")
        }
        if let last = buckets.last, last.name >= name {
            throw .misuse("bucket \(name) after \(last.name)")
        }
        bucket = name.compact()
        lastKey = nil
        keysInBucket = 0
    }

    package func put(_ key: Bytes, _ value: Bytes) throws(BoltError) {
        guard bucket != nil else { throw .misuse("a key outside of any bucket") }
        guard !key.isEmpty, key.count <= BoltFormat.keyBytesMax else {
            throw .misuse("a key of \(key.count) bytes")
        }
        guard value.count <= BoltFormat.valueBytesMax else {
            throw .misuse("a value of \(value.count) bytes")
        }
        if let lastKey, lastKey >= key { throw .misuse("keys out of order") }
        lastKey = key
        keysInBucket += 1
        try add(key, value, flags: 0)
    }

    private func end() throws(BoltError) {
        guard let name = bucket else { return }
        bucket = nil
        var value: [UInt8] = []
        if branches.isEmpty, leaf.bytes <= Self.inlineBytesMax {
            BoltFormat.append(UInt64(0), to: &value)
            BoltFormat.append(UInt64(0), to: &value)
            Self.append(leaf, page: 0, padded: false, to: &value)
            leaf = LeafPage()
        } else {
            BoltFormat.append(try finishTree(), to: &value)
            BoltFormat.append(UInt64(0), to: &value)
        }
        buckets.append((name, value))
    }

    /// The last bucket, the root, and the metas that make it a database. Returns the file's size.
    package func finish() throws(BoltError) -> UInt64 {
        try end()
        for (name, value) in buckets { try add(name, Bytes(value), flags: BoltFormat.bucketFlag) }
        let root = try finishTree()
        let freelist = nextPage
        var page: [UInt8] = []
        BoltFormat.appendPageHeader(
            id: freelist, kind: BoltFormat.PageKind.freelist, count: 0, overflow: 0, to: &page)
        try appendPages(page)
        try flush()
        var metas: [UInt8] = []
        for number in 0...1 as ClosedRange<UInt64> {
            let start = metas.count
            BoltFormat.appendPageHeader(
                id: number, kind: BoltFormat.PageKind.meta, count: 0, overflow: 0, to: &metas)
            // As bbolt's own copies: the same twice, and the first one counts.
            let meta = BoltMeta(
                pageBytes: BoltFormat.pageBytes, root: root, freelist: freelist, pages: nextPage,
                transaction: 2 - number)
            metas += meta.encoded()
            metas += [UInt8](repeating: 0, count: BoltFormat.pageBytes - (metas.count - start))
        }
        try writeOut(metas, at: 0)
        return nextPage * UInt64(BoltFormat.pageBytes)
    }

    // MARK: The tree, from the leaves upward

    private func add(_ key: Bytes, _ value: Bytes, flags: UInt32) throws(BoltError) {
        let bytes = BoltFormat.leafElementBytes + key.count + value.count
        if !leaf.elements.isEmpty,
            leaf.bytes + bytes > BoltFormat.pageBytes || leaf.elements.count == Int(UInt16.max) - 1
        {
            try writeLeaf()
        }
        leaf.elements.append((key, value, flags))
        leaf.bytes += bytes
        // Never held for longer than it takes to write it.
        if leaf.bytes >= BoltFormat.pageBytes { try writeLeaf() }
    }

    private func writeLeaf() throws(BoltError) {
        guard let first = leaf.elements.first else { return }
        let id = nextPage
        var page: [UInt8] = []
        Self.append(leaf, page: id, padded: true, to: &page)
        leaf = LeafPage()
        try appendPages(page)
        try add(child: id, first.key.compact(), at: 0)
    }

    private func add(child: UInt64, _ key: Bytes, at level: Int) throws(BoltError) {
        if level == branches.count { branches.append(BranchPage()) }
        let bytes = BoltFormat.branchElementBytes + key.count
        // At least two children each, whatever their keys' size: or the tree would never narrow.
        if branches[level].elements.count >= 2, branches[level].bytes + bytes > BoltFormat.pageBytes {
            try writeBranch(level)
        }
        branches[level].elements.append((key, child))
        branches[level].bytes += bytes
    }

    private func writeBranch(_ level: Int) throws(BoltError) {
        let branch = branches[level]
        guard let first = branch.elements.first else { return }
        let id = nextPage
        let overflow = (branch.bytes - 1) / BoltFormat.pageBytes
        var page: [UInt8] = []
        BoltFormat.appendPageHeader(
            id: id, kind: BoltFormat.PageKind.branch, count: branch.elements.count,
            overflow: overflow, to: &page)
        var offset = branch.elements.count * BoltFormat.branchElementBytes
        for element in branch.elements {
            BoltFormat.append(UInt32(offset), to: &page)
            BoltFormat.append(UInt32(element.key.count), to: &page)
            BoltFormat.append(element.page, to: &page)
            offset += element.key.count - BoltFormat.branchElementBytes
        }
        for element in branch.elements { element.key.withUnsafeBytes { page.append(contentsOf: $0) } }
        branches[level] = BranchPage()
        try appendPages(page)
        try add(child: id, first.key, at: level + 1)
    }

    /// Writes what is open of the tree, bottom up; returns its root.
    private func finishTree() throws(BoltError) -> UInt64 {
        defer {
            leaf = LeafPage()
            branches.removeAll()
        }
        if branches.isEmpty {
            // One leaf is the root, also an empty one.
            let id = nextPage
            var page: [UInt8] = []
            Self.append(leaf, page: id, padded: true, to: &page)
            try appendPages(page)
            return id
        }
        try writeLeaf()
        var level = 0
        while true {
            // A lone child is the root: a branch above it would say nothing.
            if level == branches.count - 1, branches[level].elements.count == 1 {
                return branches[level].elements[0].page
            }
            try writeBranch(level)
            level += 1
        }
    }

    private static func append(_ leaf: LeafPage, page: UInt64, padded: Bool, to bytes: inout [UInt8]) {
        bytes.reserveCapacity(bytes.count + leaf.bytes + BoltFormat.pageBytes)
        BoltFormat.appendPageHeader(
            id: page, kind: BoltFormat.PageKind.leaf, count: leaf.elements.count,
            overflow: padded ? (leaf.bytes - 1) / BoltFormat.pageBytes : 0, to: &bytes)
        var offset = leaf.elements.count * BoltFormat.leafElementBytes
        for element in leaf.elements {
            BoltFormat.append(element.flags, to: &bytes)
            BoltFormat.append(UInt32(offset), to: &bytes)
            BoltFormat.append(UInt32(element.key.count), to: &bytes)
            BoltFormat.append(UInt32(element.value.count), to: &bytes)
            offset += element.key.count + element.value.count - BoltFormat.leafElementBytes
        }
        for element in leaf.elements {
            element.key.withUnsafeBytes { bytes.append(contentsOf: $0) }
            element.value.withUnsafeBytes { bytes.append(contentsOf: $0) }
        }
    }

    // MARK: Pages

    /// Padded to whole pages.
    private func appendPages(_ bytes: [UInt8]) throws(BoltError) {
        let pages = (bytes.count + BoltFormat.pageBytes - 1) / BoltFormat.pageBytes
        buffer += bytes
        buffer.append(
            contentsOf: repeatElement(0, count: pages * BoltFormat.pageBytes - bytes.count))
        nextPage += UInt64(pages)
        if buffer.count >= Self.bufferBytes { try flush() }
    }

    private func flush() throws(BoltError) {
        try writeOut(buffer, at: written)
        written += UInt64(buffer.count)
        buffer.removeAll(keepingCapacity: true)
    }

    private func writeOut(_ bytes: [UInt8], at offset: UInt64) throws(BoltError) {
        let result = bytes.withUnsafeBytes { raw in
            Result { () throws(BoltError) in
                try FileAccess.write(raw, to: descriptor, at: offset)
            }
        }
        try result.get()
    }
}
