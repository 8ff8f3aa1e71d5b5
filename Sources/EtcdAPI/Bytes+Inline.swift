import Primitives

/// What the hot paths need of `Bytes`, compiled here: across modules `package` functions are not
/// inlined or specialized (Swift 6.3), not even `@inlinable` ones, and a generic one looks up its
/// metadata at run time for each call. Stored properties are read directly.
extension Bytes {
    @inline(__always) var length: Int { Int(end &- start) }

    @inline(__always) func withRaw<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
        storage.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[Int(start)..<Int(end)])) }
    }
}
