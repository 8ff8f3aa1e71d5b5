import EtcdAPI
import FoundationEssentials
import Primitives
import SwiftProtobuf

/// Leases of the source, at the destination under the same ids. A destination's lease is renewed as long
/// as the source's would outlive it, and left to run out otherwise.
actor MirrorLeases {
    private struct Tracked {
        /// What a renewal brings.
        var ttlSeconds: Int64
        var endsAt: ContinuousClock.Instant
        var lookAt: ContinuousClock.Instant
    }
    /// Looked at in one go, so that the rest of the mirror is not kept waiting.
    private static let looksMax = 256

    private let source: MirrorSide
    private let destination: MirrorSide
    private var tracked: [Int64: Tracked] = [:]
    /// Asked for while another put waits for the same lease.
    private var making: [Int64: Task<Bool, any Error>] = [:]
    private(set) var lost = 0

    init(source: MirrorSide, destination: MirrorSide) {
        self.source = source
        self.destination = destination
    }

    var count: Int { tracked.count }

    func forget(_ lease: Int64) { tracked[lease] = nil }

    /// False: the source no longer has it, so its keys are about to be deleted.
    func ensure(_ lease: Int64) async throws -> Bool {
        if tracked[lease] != nil { return true }
        if let task = making[lease] { return try await task.value }
        let task = Task { try await self.make(lease) }
        making[lease] = task
        defer { making[lease] = nil }
        return try await task.value
    }

    /// A lease that somebody keeps alive always has two thirds of its time left, and keeps its whole
    /// time; one that nobody renews gets what remains.
    static func ttl(remaining: Int64, granted: Int64) -> Int64 {
        3 * remaining >= 2 * granted - 3 ? granted : max(1, remaining)
    }

    private func make(_ lease: Int64) async throws -> Bool {
        guard let (remaining, granted) = try await source.timeToLive(lease) else { return false }
        var request = Etcdserverpb_LeaseGrantRequest()
        request.id = lease
        request.ttl = Self.ttl(remaining: remaining, granted: granted)
        var ttl = request.ttl
        do {
            let answer = try await destination.call(
                .leaseGrant, request, as: Etcdserverpb_LeaseGrantResponse.self)
            ttl = answer.ttl
        } catch let error as EtcdClientError where error.status == .failedPrecondition {
            // Made by an earlier run: it brings what it was granted.
            guard let (_, granted) = try await destination.timeToLive(lease) else { return false }
            ttl = granted
            _ = try await renew([lease])
        } catch let error as EtcdClientError {
            throw MirrorError.refused("the destination refuses a lease: \(error.message)")
        }
        track(lease, ttl)
        return true
    }

    private func track(_ lease: Int64, _ ttl: Int64) {
        let now = ContinuousClock.now
        tracked[lease] = Tracked(
            ttlSeconds: ttl, endsAt: now + .seconds(ttl),
            lookAt: now + .milliseconds(min(60_000, max(300, ttl * 300))))
    }

    /// Looks after leases whose time has come. `all`: after every one.
    func keep(all: Bool = false) async throws {
        let now = ContinuousClock.now
        var due = tracked.filter { all || $0.value.lookAt <= now }.map(\.key)
        if !all { due = Array(due.sorted().prefix(Self.looksMax)) }
        var renewals: [Int64] = []
        for lease in due {
            guard let (remaining, _) = try await source.timeToLive(lease) else {
                // Its keys' deletions come with the changes; until then it may run out by itself.
                tracked[lease] = nil
                continue
            }
            guard let held = tracked[lease] else { continue }
            if ContinuousClock.now + .seconds(remaining) > held.endsAt { renewals.append(lease) }
            tracked[lease]?.lookAt =
                ContinuousClock.now
                + .milliseconds(min(60_000, max(300, min(remaining, held.ttlSeconds) * 300)))
        }
        guard !renewals.isEmpty else { return }
        for (lease, ttl) in try await renew(renewals) {
            if ttl > 0 {
                track(lease, ttl)
            } else {
                // It ran out there, with its keys: they are to be copied again.
                tracked[lease] = nil
                lost += 1
            }
        }
    }

    private func renew(_ leases: [Int64]) async throws -> [Int64: Int64] {
        var found: [Int64: Int64] = [:]
        var attempts = 0
        while found.count < leases.count {
            let stream = destination.client.stream(.leaseKeepAlive)
            let left = leases.filter { found[$0] == nil }
            let timer = Task {
                try await Task.sleep(for: .seconds(10))
                stream.cancel()
            }
            defer {
                timer.cancel()
                stream.cancel()
            }
            for lease in left {
                var request = Etcdserverpb_LeaseKeepAliveRequest()
                request.id = lease
                stream.send(try request.serializedBytes())
            }
            do {
                for try await message in stream.messages {
                    let answer = try Etcdserverpb_LeaseKeepAliveResponse(serializedBytes: message)
                    found[answer.id] = answer.ttl
                    if found.count == leases.count { break }
                }
            } catch {
                destination.turn()
            }
            attempts += 1
            // The next look tries the rest again.
            if attempts == 5 { return found }
        }
        return found
    }
}
