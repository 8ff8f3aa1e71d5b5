/// Why a file cannot be read or written.
package enum BoltError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A system call failed.
    case io(String)
    /// The disk is full.
    case noSpace(String)
    /// Not bbolt's bytes, or no longer.
    case damaged(String)
    /// The caller handed over what no file can hold (keys out of order, too long).
    case misuse(String)

    package var description: String {
        switch self {
        case .io(let text), .noSpace(let text), .misuse(let text): text
        case .damaged(let text): "damaged database file: \(text)"
        }
    }
}

/// bbolt's bytes; all numbers are little-endian.
///
/// A file is pages of one size. Pages 0 and 1 are metas (the valid one with the higher transaction
/// counts). A page begins with id (8), kind (2), count (2), overflow (4): how many further pages its
/// contents run on for. Leaf elements are flags (4), offset from the element (4), key size (4), value
/// size (4); branch elements are offset (4), key size (4), page (8). A leaf element with flag 1 is a
/// bucket: its value is root page (8) and sequence (8), and if the root is 0, a whole leaf page follows
/// inline. The root of everything is a bucket without a name, in the meta.
enum BoltFormat {
    static let magic: UInt32 = 0xED0C_DAED
    static let version: UInt32 = 2
    static let pageBytes = 4096
    static let pageHeaderBytes = 16
    static let metaBytes = 64
    static let leafElementBytes = 16
    static let branchElementBytes = 16
    static let bucketHeaderBytes = 16
    static let bucketFlag: UInt32 = 1
    static let noFreelist = UInt64.max

    /// bbolt's own limits of a key and a value.
    static let keyBytesMax = 32_768
    static let valueBytesMax = (1 << 31) - 2

    enum PageKind {
        static let branch: UInt16 = 0x01, leaf: UInt16 = 0x02
        static let meta: UInt16 = 0x04, freelist: UInt16 = 0x10
    }

    static func put<T: FixedWidthInteger>(_ value: T, into bytes: inout [UInt8], at offset: Int) {
        withUnsafeBytes(of: value.littleEndian) { raw in
            for i in 0..<raw.count { bytes[offset + i] = raw[i] }
        }
    }
    static func append<T: FixedWidthInteger>(_ value: T, to bytes: inout [UInt8]) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }
    /// The caller has checked the bounds.
    static func get<T: FixedWidthInteger>(_ raw: UnsafeRawBufferPointer, _ at: Int) -> T {
        T(littleEndian: raw.loadUnaligned(fromByteOffset: at, as: T.self))
    }

    static func appendPageHeader(
        id: UInt64, kind: UInt16, count: Int, overflow: Int, to bytes: inout [UInt8]
    ) {
        append(id, to: &bytes)
        append(kind, to: &bytes)
        append(UInt16(count), to: &bytes)
        append(UInt32(overflow), to: &bytes)
    }

    /// FNV-1a, 64 bits: the metas' checksum.
    static func fnv(_ bytes: some Sequence<UInt8>) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes {
            hash ^= UInt64(byte)
            hash = hash &* 0x100_0000_01B3
        }
        return hash
    }
}

/// The page that says where everything is.
package struct BoltMeta: Equatable, Sendable {
    package var pageBytes: Int
    package var root: UInt64
    package var freelist: UInt64
    /// No page of this or a higher number is in use.
    package var pages: UInt64
    package var transaction: UInt64

    func encoded() -> [UInt8] {
        var bytes: [UInt8] = []
        BoltFormat.append(BoltFormat.magic, to: &bytes)
        BoltFormat.append(BoltFormat.version, to: &bytes)
        BoltFormat.append(UInt32(pageBytes), to: &bytes)
        BoltFormat.append(UInt32(0), to: &bytes)
        BoltFormat.append(root, to: &bytes)
        BoltFormat.append(UInt64(0), to: &bytes)
        BoltFormat.append(freelist, to: &bytes)
        BoltFormat.append(pages, to: &bytes)
        BoltFormat.append(transaction, to: &bytes)
        BoltFormat.append(BoltFormat.fnv(bytes), to: &bytes)
        return bytes
    }

    /// nil: not a valid meta.
    init?(_ raw: UnsafeRawBufferPointer) {
        guard raw.count >= BoltFormat.metaBytes else { return nil }
        let magic: UInt32 = BoltFormat.get(raw, 0), version: UInt32 = BoltFormat.get(raw, 4)
        let pageBytes: UInt32 = BoltFormat.get(raw, 8), checksum: UInt64 = BoltFormat.get(raw, 56)
        guard magic == BoltFormat.magic, version == BoltFormat.version,
            checksum == BoltFormat.fnv(raw[..<56]),
            (512...65536).contains(pageBytes), pageBytes & (pageBytes - 1) == 0
        else { return nil }
        self.pageBytes = Int(pageBytes)
        root = BoltFormat.get(raw, 16)
        freelist = BoltFormat.get(raw, 32)
        pages = BoltFormat.get(raw, 40)
        transaction = BoltFormat.get(raw, 48)
    }

    init(pageBytes: Int, root: UInt64, freelist: UInt64, pages: UInt64, transaction: UInt64) {
        self.pageBytes = pageBytes
        self.root = root
        self.freelist = freelist
        self.pages = pages
        self.transaction = transaction
    }
}
