import EtcdFacade
import NIOCore
import NIOPosix
import Primitives

/// Brings a snapshot's builder what is visible at one revision in a region that is spread: page after page of
/// this node's rows and the others' in one order, each put aside by a thread before the next is asked for. On the loop.
final class SnapshotGathering: @unchecked Sendable {
    // Unchecked: only the loop calls it; the threads get rows and the builder.
    private static let rowsMax = 500
    private static let bytesMax = 256 << 10
    /// Without a page: nobody can tell of some of the rows.
    private static let patience = TimeSpan.seconds(30)

    private weak var host: Host?
    private let revision: Revision
    private let builder: SnapshotBuilder
    private let isWanted: () -> Bool
    private var done: (SnapshotFailure?) -> Void = { _ in }
    private var progressAt = Clocks.instant()

    init(_ host: Host, at revision: Revision, into builder: SnapshotBuilder, isWanted: @escaping () -> Bool) {
        self.host = host
        self.revision = revision
        self.builder = builder
        self.isWanted = isWanted
    }

    func run(_ done: @escaping (SnapshotFailure?) -> Void) {
        self.done = done
        gatherLeases()
    }

    private func gatherLeases() {
        attempt({ host throws(RequestError) in try host.leaseTimesAll(at: self.revision) }) { leases in
            self.builder.add(leases: leases)
            self.gather(from: KeyRange.everything.key)
        } again: {
            self.gatherLeases()
        }
    }

    private struct Page {
        var rows: [Row] = []
        /// Where the next begins; nil: this was the last.
        var next: Bytes?
    }

    private func gather(from key: Bytes) {
        attempt({ host throws(RequestError) in try self.page(from: key, of: host) }) { page in
            guard !page.rows.isEmpty || page.next == nil else {
                // Nothing was missing for certain but the first page of somebody.
                return self.wait { self.gather(from: key) }
            }
            self.put(page)
        } again: {
            self.gather(from: key)
        }
    }

    private func page(from key: Bytes, of host: Host) throws(RequestError) -> Page {
        var page = Page(), bytes = 0
        let stop = try host.visitAll(
            KeyRange(key: key, end: KeyRange.everything.end), at: revision, limit: Self.rowsMax, keysOnly: false
        ) { row in
            if page.rows.count == Self.rowsMax || bytes >= Self.bytesMax {
                page.next = Bytes(row.key)
                return false
            }
            bytes += row.key.count + row.value.count
            page.rows.append(Row(row))
            return true
        }
        if let stop { page.next = stop }
        return page
    }

    private func put(_ page: Page) {
        guard let host else { return done(.failed("the node is stopping")) }
        progressAt = Clocks.instant()
        let builder = builder
        host.threads.runIfActive(eventLoop: host.loop) {
            Result { () throws(SnapshotFailure) in try builder.add(page.rows) }
        }.assumeIsolated().whenComplete { result in
            switch result {
            case .success(.success):
                guard let next = page.next else { return self.done(nil) }
                self.gather(from: next)
            case .success(.failure(let failure)): self.done(failure)
            case .failure: self.done(.failed("the node is stopping"))
            }
        }
    }

    /// What lies elsewhere may have to be asked for first.
    private func attempt<T>(
        _ body: (Host) throws(RequestError) -> T, then go: (T) -> Void, again: @escaping () -> Void
    ) {
        guard let host, !host.isStopped else { return done(.failed("the node is stopping")) }
        guard isWanted() else { return done(.failed("nobody wants it any more")) }
        let found: T
        do throws(RequestError) {
            found = try body(host)
        } catch {
            switch error {
            case .elsewhere, .tooManyRequests: wait(again)
            case .compacted: done(.failed("revision \(revision) was compacted while its rows were gathered"))
            default: done(.failed("rows of other nodes cannot be read: \(error)"))
            }
            return
        }
        go(found)
    }

    private func wait(_ again: @escaping () -> Void) {
        guard let host else { return done(.failed("the node is stopping")) }
        guard Clocks.instant() < progressAt.advanced(by: Self.patience) else {
            return done(.failed("no node can be reached that has all of the rows"))
        }
        host.whenFetched(again)
    }
}
