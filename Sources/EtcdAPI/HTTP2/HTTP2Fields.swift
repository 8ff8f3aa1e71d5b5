import CNghttp2
import Primitives

/// A block of header fields in the form that nghttp2 takes. Immutable.
///
/// `shared` blocks live as long as the process: nghttp2 refers to their bytes and indexes them, so
/// that a repeated answer costs a byte a field. Others are copied by nghttp2, and kept out of the
/// connection's table.
package final class HTTP2Fields: @unchecked Sendable {
    let values: UnsafeMutableBufferPointer<nghttp2_nv>
    private let bytes: UnsafeMutableBufferPointer<UInt8>
    private let isShared: Bool

    package convenience init(_ fields: [(name: String, value: String)]) {
        self.init(fields, isShared: false)
    }

    package static func shared(_ fields: [(name: String, value: String)]) -> HTTP2Fields {
        HTTP2Fields(fields, isShared: true)
    }

    private init(_ fields: [(name: String, value: String)], isShared: Bool) {
        self.isShared = isShared
        let total = fields.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count }
        bytes = .allocate(capacity: total)
        values = .allocate(capacity: fields.count)
        // An empty buffer may have no address, and a field of length 0 needs none.
        let base = bytes.baseAddress
        let flags: UInt8 =
            isShared
            ? UInt8(NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue | NGHTTP2_NV_FLAG_NO_COPY_VALUE.rawValue)
            : UInt8(NGHTTP2_NV_FLAG_NO_INDEX.rawValue)
        var at = 0
        func place(_ text: String) -> (UnsafeMutablePointer<UInt8>?, Int) {
            let start = at
            for byte in text.utf8 {
                bytes.initializeElement(at: at, to: byte)
                at += 1
            }
            return (base.map { $0 + start }, at - start)
        }
        for (i, field) in fields.enumerated() {
            let name = place(field.name)
            let value = place(field.value)
            values.initializeElement(
                at: i,
                to: nghttp2_nv(
                    name: name.0, value: value.0, namelen: name.1, valuelen: value.1, flags: flags))
        }
    }

    deinit {
        invariant(!isShared, "a shared block is for ever")
        values.deallocate()
        bytes.deallocate()
    }
}
