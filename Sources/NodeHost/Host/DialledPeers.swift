import Primitives
import Transport

/// Whom this node talks to: everybody who is listed, and who has left for a while longer: he may still have
/// to hear of it, and to be answered. Each for a time of his own, for lists may follow each other quickly.
struct DialledPeers {
    static let farewell = TimeSpan.seconds(10)

    private(set) var addresses: [PeerID: PeerAddress] = [:]
    /// Out of the list since then.
    private var left: [PeerID: Instant] = [:]

    /// `isNeeded`: he is not listed any more, but some group counts on his vote still.
    /// True: `addresses` have changed.
    mutating func follow(
        _ listed: [PeerID: PeerAddress], at now: Instant, isNeeded: (PeerID) -> Bool
    ) -> Bool {
        let before = addresses
        var leaving: [PeerID: Instant] = [:]
        addresses = listed
        for (peer, address) in before where listed[peer] == nil {
            let since = isNeeded(peer) ? now : left[peer] ?? now
            guard now.since(since) < Self.farewell else { continue }
            leaving[peer] = since
            addresses[peer] = address
        }
        left = leaving
        return addresses != before
    }

    /// When the next of those who have left may be forgotten. Nil: nobody has.
    var nextFarewell: Instant? { left.values.min()?.advanced(by: Self.farewell) }
}
