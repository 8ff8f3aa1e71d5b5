/// Whole lines, unbuffered: what a script waits for must be there when it is said.
package enum HostOutput {
    package static func say(_ line: String) { ControlSocket.write(line + "\n", to: 1) }
    package static func complain(_ line: String) { ControlSocket.write(line + "\n", to: 2) }
}
