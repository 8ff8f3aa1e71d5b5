import EtcdAPI
import Primitives

/// One watch of a client: a key or a range, from a revision on.
final class Watcher {
    /// Where the watcher hangs.
    enum Place {
        /// On the live stream: everything up to the emitted revision has been sent to it.
        case synced
        /// Behind; catches up from the store, in the queue of `WatchHub`.
        case catchingUp
        /// Behind, and its client does not read: waits for `onWritable`.
        case parked
        /// Cancelled; whoever still holds it lets it go.
        case gone
    }

    let id: Int64
    let range: KeyRange
    /// As the client asked; 0: from now on.
    let startRevision: Revision
    let skipsPuts: Bool
    let skipsDeletions: Bool
    let wantsPrevious: Bool
    let wantsProgress: Bool
    let wantsFragments: Bool
    unowned let stream: WatchStream

    /// The first revision that it has not been shown. Kept exact while it is behind; of a synced
    /// watcher only a lower bound (a start in the future, mostly).
    var nextRevision: Revision
    var place = Place.gone
    /// Nothing was sent since the last round of progress notifications.
    var isProgressDue = true
    /// Stands in the queue of those that catch up, though perhaps no longer one of them.
    var isQueued = false
    /// The step of catching up that is under way has enough others to send to.
    var isLeftOut = false
    /// Its place in the index, for removal.
    var position = 0
    /// Scratch of the delivery that is under way: indices of events in its batch.
    var hits: [Int32] = []

    init(
        _ creation: WatchCreation, range: KeyRange, id: Int64, stream: WatchStream,
        nextRevision: Revision
    ) {
        self.id = id
        self.range = range
        startRevision = Revision(creation.startRevision)
        skipsPuts = creation.withoutPuts
        skipsDeletions = creation.withoutDeletes
        wantsPrevious = creation.wantsPrevious
        wantsProgress = creation.progressNotify
        wantsFragments = creation.fragment
        self.stream = stream
        self.nextRevision = nextRevision
    }

    func accepts(_ row: Row) -> Bool {
        row.modRevision >= nextRevision && !(row.isDeletion ? skipsDeletions : skipsPuts)
    }
}

/// One Watch call and the watchers that it carries.
final class WatchStream {
    let call: CallReference
    var watchers: [Int64: Watcher] = [:]
    /// The next id that the server would choose.
    var nextID: Int64 = 0
    /// Its client reads too slowly: nothing is sent until `onWritable`.
    var isBlocked = false
    /// In the hub's list of those that were blocked since memory is short.
    var isHeldBack = false
    /// Watchers that are not synced. 0: a progress request can be answered.
    var behindCount = 0
    var hasProgressRequest = false
    /// Of its watchers' starts, as their clients asked; may be of one that is gone by now, if it is past.
    var latestStart = Revision.zero
    var isLatestStartGone = false
    /// For the progress notifications that come by themselves; `.never` while no watcher wants any.
    var nextProgress = Instant.never
    var isClosed = false
    /// Responses of the delivery that is under way, framed.
    var outbox: [UInt8] = []
    /// Tokens of watches that wait for newer permissions.
    var creations: Set<UInt64> = []

    init(call: CallReference) { self.call = call }
}
