import CLinux
import Glibc

package enum PortCheck {
    /// Is the port of 127.0.0.1 free for a server of ours? (Same socket options as the server's.)
    package static func isFree(_ port: Int) -> Bool {
        guard let descriptor = take(port) else { return false }
        close(descriptor)
        return true
    }

    /// Listens on the port until the descriptor is closed; nil when it is taken.
    package static func take(_ port: Int) -> Int32? {
        guard port > 0, port < 65_536 else { return nil }
        let descriptor = polder_listen_on_loopback(Int32(port))
        return descriptor >= 0 ? descriptor : nil
    }
}
