import EtcdAPI
import FoundationEssentials
import Primitives
import SwiftProtobuf
import Synchronization

/// The source's changes as they come, whole revisions. What has come and was not taken is bounded: the
/// connection is not read while too much waits.
final class MirrorFeed: Sendable {
    struct Change: Sendable {
        let revision: Int64
        let events: [Mvccpb_Event]
        let bytes: Int
    }
    enum End: Equatable, Sendable {
        /// History before this revision is gone: events are missing.
        case compacted(Int64)
        /// Another connection may go on where this one stopped.
        case broken(String)
    }

    private struct State {
        var changes: [Change] = []
        var end: End?
        /// Events of revisions that are not complete yet, because their answer comes in fragments.
        var pending: [Mvccpb_Event] = []
    }
    private let state = Mutex(State())
    private let stream: EtcdStream
    private let client: EtcdClient

    /// `client` is for this stream alone.
    init(_ client: EtcdClient, key: Data, end: Data, from revision: Int64, heldBytesMax: Int) {
        self.client = client
        stream = client.stream(.watch, heldBytesMax: heldBytesMax)
        var create = Etcdserverpb_WatchCreateRequest()
        create.key = key
        create.rangeEnd = end
        create.startRevision = revision
        create.fragment = true
        create.progressNotify = true
        var request = Etcdserverpb_WatchRequest()
        request.createRequest = create
        // A message without required fields always serializes.
        stream.send((try? request.serializedBytes()) ?? [])
        Task { await self.read() }
    }

    func close() {
        stream.cancel()
        let client = client
        Task { await client.shutdown() }
    }

    private func read() async {
        do {
            for try await message in stream.messages {
                let answer = try Etcdserverpb_WatchResponse(serializedBytes: message)
                if let end = receive(answer, bytes: message.count) {
                    finish(end)
                    return stream.cancel()
                }
            }
            finish(.broken("the watch has ended"))
        } catch {
            finish(.broken("\(error)"))
        }
    }

    private func finish(_ end: End) { state.withLock { $0.end = $0.end ?? end } }

    private func receive(_ answer: Etcdserverpb_WatchResponse, bytes: Int) -> End? {
        if answer.compactRevision > 0 { return .compacted(answer.compactRevision) }
        if answer.canceled { return .broken("the watch was cancelled: \(answer.cancelReason)") }
        state.withLock { state in
            state.pending += answer.events
            guard !answer.fragment else { return }
            var start = 0
            let events = state.pending
            while start < events.count {
                let revision = events[start].kv.modRevision
                var end = start
                while end < events.count, events[end].kv.modRevision == revision { end += 1 }
                let slice = Array(events[start..<end])
                state.changes.append(
                    Change(
                        revision: revision, events: slice,
                        bytes: slice.reduce(0) { $0 + $1.kv.bytes }))
                start = end
            }
            state.pending = []
        }
        // What came is held until it is taken, as far as it is events.
        let held = answer.events.reduce(0) { $0 + $1.kv.bytes }
        stream.took(bytes - held)
        return nil
    }

    var waits: Int { state.withLock { $0.changes.count } }

    /// Changes for one transaction, at least one if there is any.
    func take(operationsMax: Int, bytesMax: Int) -> [Change] {
        let taken = state.withLock { state in
            var operations = 0, bytes = 0, count = 0
            for change in state.changes {
                operations += change.events.count
                bytes += change.bytes
                if count > 0, operations > operationsMax || bytes > bytesMax { break }
                count += 1
            }
            let taken = Array(state.changes[..<count])
            state.changes.removeFirst(count)
            return taken
        }
        stream.took(taken.reduce(0) { $0 + $1.bytes })
        return taken
    }

    /// Once everything that came before has been taken.
    var end: End? { state.withLock { $0.changes.isEmpty ? $0.end : nil } }
}
