import CLinux

package enum PortCheck {
    /// Is the port of 127.0.0.1 free for a server of ours? (Same socket options as the server's.)
    package static func isFree(_ port: Int) -> Bool {
        port > 0 && port < 65_536 && polder_port_is_free(Int32(port)) == 1
    }
}
