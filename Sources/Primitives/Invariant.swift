/// Stops the process when one of our own rules is broken; on in release builds.
/// For what a peer or a client may send there are errors, not invariants.
@inlinable public func invariant(
    _ condition: @autoclosure () -> Bool, _ why: @autoclosure () -> String = "",
    file: StaticString = #fileID, line: UInt = #line
) {
    guard condition() else { fatalError("invariant broken: \(why())", file: file, line: line) }
}

/// Both answers are legal here. Executes nothing; tells the reader, and survives refactoring.
@inlinable public func maybe(_ condition: @autoclosure () -> Bool) {}
