import NIOCore
import NIOPosix
import Primitives
import TLS
import Testing

@testable import Transport

@Suite(.serialized, .timeLimit(.minutes(2)))
struct PeerTransportTests {
    static func number(_ n: Int, size: Int = 0) -> Bytes {
        var writer = ByteWriter(capacity: size + 8)
        writer.fixed64(UInt64(n))
        writer.raw([UInt8](repeating: UInt8(truncatingIfNeeded: n), count: size))
        return Bytes(writer.bytes)
    }

    @Test(arguments: [false, true])
    func `Who is no peer may ask, and is answered once`(secure: Bool) async throws {
        let keys = secure ? try Keys() : nil
        try await withBench { bench in
            let member = try await bench.start(peer(1), tls: keys?.context("r1-n1"))
            let stranger = try await bench.start(
                peer(0), cluster: 0, tls: keys?.context("r1-n9"))
            let big = Self.number(7, size: 100_000)
            try await bench.on { member.answerTo = { $0 == Bytes("who?") ? big : nil } }
            let address = PeerAddress(host: "127.0.0.1", port: member.port)
            let answer = try await bench.loop.flatSubmit {
                stranger.transport.ask(Bytes("who?"), of: address, as: peer(1))
            }.get()
            #expect(answer == big)
            await #expect(throws: (any Error).self) {
                try await bench.loop.flatSubmit {
                    stranger.transport.ask(Bytes("what?"), of: address, as: peer(1))
                }.get()
            }
            try await bench.on { #expect(member.notes.isEmpty && member.events.isEmpty) }
        }
    }

    @Test(arguments: [false, true])
    func `Three nodes exchange frames in order, big ones too`(secure: Bool) async throws {
        let keys = secure ? try Keys() : nil
        try await withBench { bench in
            let a = try await bench.start(peer(1), tls: keys?.context("r1-n1"))
            let b = try await bench.start(peer(2), tls: keys?.context("r1-n2"))
            let c = try await bench.start(peer(1, region: 2), tls: keys?.context("r2-n1"))
            let all = [a, b, c]
            try await bench.connect(a, b, c)
            try await bench.until("all connected") {
                all.allSatisfy { node in
                    all.allSatisfy { $0.id == node.id || node.transport.isConnected($0.id) }
                }
            }
            let sizes = [0, 10, 70_000, 0, 3_000_000, 5, 20_000]
            let expected = (0..<200).map {
                Self.number($0, size: sizes[$0 % 7] / ($0 < 7 ? 1 : 50))
            }
            for turn in 0..<20 {
                try await bench.on {
                    for frame in expected[(turn * 10)..<(turn * 10 + 10)] {
                        for from in all {
                            for to in all where to.id != from.id {
                                // Not in the macro: it would print megabytes of frames.
                                let isTaken = from.transport.send(frame, to: to.id)
                                #expect(isTaken)
                            }
                        }
                    }
                    for node in all { node.transport.flush() }
                }
            }
            try await bench.until("all frames there") {
                all.allSatisfy { n in
                    all.allSatisfy { $0.id == n.id || n.frames[$0.id]?.count == 200 }
                }
            }
            try await bench.on {
                for node in all {
                    for other in all where other.id != node.id {
                        let isEqual = node.frames[other.id] == expected
                        #expect(isEqual)
                    }
                    #expect(node.deliveries > 0)
                    #expect(node.events.count == 2)
                }
                let near = a.transport.statistics[b.id] ?? PeerStatistics()
                let far = a.transport.statistics[c.id] ?? PeerStatistics()
                #expect(near.framesSent == 200 && near.framesReceived == 200)
                #expect(near.bytesSent < near.uncompressedBytesSent)
                // More frames are compressed on the way to another region.
                #expect(far.bytesSent < near.bytesSent && far.compressionRatio > 10)
                #expect(near.queuedBytes == 0 && near.connected)
            }
        }
    }

    @Test func `A turn's frames leave at the flush and not before`() async throws {
        try await withBench { bench in
            let a = try await bench.start(peer(1))
            let b = try await bench.start(peer(2))
            try await bench.connect(a, b)
            try await bench.until("connected") { a.transport.isConnected(b.id) }
            try await bench.on {
                for i in 0..<10 { a.transport.send(Self.number(i), to: b.id) }
                #expect(a.transport.statistics[b.id]?.queuedBytes == 240)
                a.transport.flush()
            }
            try await bench.until("there") { b.frames[a.id]?.count == 10 }
            try await bench.on { #expect(b.deliveries == 1) }
        }
    }

    @Test func `A process that ends is told as lost, and its successor is found`() async throws {
        try await withBench { bench in
            let a = try await bench.start(peer(1))
            let b = try await bench.start(peer(2), boot: 1)
            try await bench.connect(a, b)
            try await bench.until("connected") {
                a.transport.isConnected(b.id) && b.transport.isConnected(a.id)
            }
            try await bench.stop(b)
            try await bench.until("lost") { a.events.last == .disconnected(b.id, lost: true) }
            try await bench.on {
                #expect(
                    a.events == [
                        .connected(b.id, 1), .disconnected(b.id, lost: false),
                        .disconnected(b.id, lost: true),
                    ])
                #expect(!a.transport.send(Bytes("nobody there"), to: b.id))
            }
            let again = try await bench.start(peer(2), boot: 2, port: b.port)
            try await bench.connect(a, again)
            try await bench.until("connected again") { a.events.last == .connected(b.id, 2) }
            try await bench.on {
                a.transport.send(Bytes("hello"), to: again.id)
                a.transport.flush()
            }
            try await bench.until("frame") { again.frames[a.id] == [Bytes("hello")] }
        }
    }

    @Test func `A peer that never was there is told as lost once`() async throws {
        try await withBench { bench in
            let a = try await bench.start(peer(1))
            let gone = try await bench.start(peer(2))
            try await bench.stop(gone)
            try await bench.connect(a, gone)
            try await bench.until("lost") { !a.events.isEmpty }
            try await Task.sleep(for: .milliseconds(300))
            try await bench.on {
                #expect(a.events == [.disconnected(gone.id, lost: true)])
                #expect(a.notes.count == 1)
            }
        }
    }

    @Test func `Builds one step apart talk, and none that does not know what its region uses`()
        async throws
    {
        try await withBench { bench in
            let old = try await bench.start(peer(1))
            let next = try await bench.start(peer(2)) { $0.featureLevel = FeatureLevel.own + 1 }
            let abroad = try await bench.start(peer(1, region: 2))
            let ahead = try await bench.start(peer(3)) { $0.featureLevel = FeatureLevel.own + 1 }
            try await bench.on { ahead.transport.setRegionLevel(FeatureLevel.own + 1) }
            try await bench.connect(old, next, ahead, abroad)
            try await bench.until("builds one step apart talk") {
                old.events.contains(.connected(next.id, 1))
                    && next.events.contains(.connected(old.id, 1))
            }
            try await bench.until("the old build is out, other regions are not asked") {
                old.notes.contains(.isOutdated(regionLevel: FeatureLevel.own + 1))
                    && next.events.contains(.connected(ahead.id, 1))
                    && abroad.events.contains(.connected(ahead.id, 1))
            }
            try await bench.on {
                #expect(!old.events.contains(.connected(ahead.id, 1)))
                #expect(!ahead.events.contains(.connected(old.id, 1)))
                #expect(!next.notes.contains(.isOutdated(regionLevel: FeatureLevel.own + 1)))
            }
        }
    }

    @Test func `Other clusters, strangers and mistaken addresses are refused with the reason`()
        async throws
    {
        try await withBench { bench in
            let a = try await bench.start(peer(1))
            let foreign = try await bench.start(peer(2), cluster: 8)
            try await bench.connect(a, foreign)
            try await bench.until("both refused") {
                a.notes.contains(
                    .refusedByPeer(foreign.id, reason: "cluster 7, not 8"))
                    && foreign.notes.contains(.refusedByPeer(a.id, reason: "cluster 8, not 7"))
            }
            let stranger = try await bench.start(peer(3))
            try await bench.on {
                stranger.transport.setPeers([
                    a.id: PeerAddress(host: "localhost", port: a.port),
                    peer(9): PeerAddress(host: "127.0.0.1", port: a.port),
                ])
            }
            try await bench.until("stranger refused") {
                stranger.notes.contains(.refusedByPeer(a.id, reason: "r1-n3 is not a peer"))
                    && stranger.notes.contains(
                        .refusedByPeer(peer(9), reason: "looks for r1-n9, but this is r1-n1"))
            }
            try await bench.on {
                for node in bench.nodes {
                    #expect(node.frames.isEmpty)
                    #expect(
                        !node.events.contains {
                            if case .connected = $0 { true } else { false }
                        })
                }
            }
        }
    }

    @Test func `By host, one certificate may serve all nodes, and another host's is refused`()
        async throws
    {
        let keys = try Keys()
        try await withBench { bench in
            let shared = try keys.context("shared")
            let a = try await bench.start(peer(1), tls: shared) { $0.namesPeersByHost = true }
            let b = try await bench.start(peer(2), tls: shared) { $0.namesPeersByHost = true }
            let elsewhere = try await bench.start(
                peer(3), tls: keys.context("elsewhere", ip: "10.0.0.9")
            ) { $0.namesPeersByHost = true }
            try await bench.connect(a, b, elsewhere)
            try await bench.until("a and b connected, elsewhere refused") {
                a.transport.isConnected(b.id) && b.transport.isConnected(a.id)
                    && elsewhere.notes.contains(
                        .refusedByPeer(a.id, reason: "no certificate for 127.0.0.1"))
            }
            try await bench.on { #expect(!a.transport.isConnected(elsewhere.id)) }
        }
    }

    @Test func `Certificates of another authority, and another node's, are refused`() async throws {
        let keys = try Keys()
        try await withBench { bench in
            let a = try await bench.start(peer(1), tls: keys.context("r1-n1"))
            let forged = try await bench.start(peer(2), tls: keys.context("r1-n2", foreign: true))
            // A right certificate, but it is node 4's.
            let disguised = try await bench.start(peer(3), tls: keys.context("r1-n4"))
            let plain = try await bench.start(peer(5))
            try await bench.connect(a, forged, disguised, plain)
            @Sendable func failed(_ node: TestNode, _ peer: PeerID, _ text: String) -> Bool {
                node.notes.contains { note in
                    switch note {
                    case .connectionFailed(peer, let reason), .refusedByPeer(peer, let reason):
                        reason.contains(text)
                    default: false
                    }
                }
            }
            try await bench.until("all refused") {
                failed(a, forged.id, "certificate verify failed")
                    && failed(a, disguised.id, "mismatch")
                    && failed(disguised, a.id, "no certificate for r1-n3")
                    && failed(forged, a.id, "unknown ca")
                    && a.notes.contains {
                        if case .refusedInbound = $0 { true } else { false }
                    }
            }
            try await bench.on {
                for node in bench.nodes {
                    #expect(!bench.nodes.contains { node.transport.isConnected($0.id) })
                }
            }
        }
    }

    @Test func `Rubbish on the port does not disturb the others`() async throws {
        try await withBench { bench in
            let a = try await bench.start(peer(1))
            let b = try await bench.start(peer(2))
            try await bench.connect(a, b)
            try await bench.until("connected") { a.transport.isConnected(b.id) }
            var early = ByteBuffer()
            early.writeFrame(.data, Bytes("no hello before"), compress: false, checksum: true)
            for bytes in [
                ByteBuffer(string: "GET / HTTP/1.1\r\n\r\n"), ByteBuffer(bytes: [0]), early,
            ] {
                let channel = try await ClientBootstrap(group: bench.group)
                    .connect(host: "127.0.0.1", port: b.port).get()
                try await channel.writeAndFlush(bytes)
                if bytes.readableBytes == 1 {
                    try await channel.close()
                } else {
                    try await channel.closeFuture.get()
                }
            }
            try await bench.until("noted") {
                b.notes.filter { if case .malformed = $0 { true } else { false } }.count == 2
            }
            try await bench.on {
                a.transport.send(Bytes("fine"), to: b.id)
                a.transport.flush()
            }
            try await bench.until("frame") { b.frames[a.id] == [Bytes("fine")] }
            try await bench.on { #expect(b.events == [.connected(a.id, 1)]) }
        }
    }

    @Test(arguments: [false, true])
    func `Whoever queues too much for a peer loses the connection, not the memory`(
        secure: Bool
    ) async throws {
        let keys = secure ? try Keys() : nil
        try await withBench { bench in
            let a = try await bench.start(peer(1), tls: keys?.context("r1-n1")) {
                $0.queuedBytesMax = 8 << 20
                $0.compressFromBytes = .max
            }
            let b = try await bench.start(peer(2), tls: keys?.context("r1-n2"))
            try await bench.connect(a, b)
            try await bench.until("connected") { a.transport.isConnected(b.id) }
            // All in one turn of the loop: nothing can leave meanwhile but what the socket takes.
            let sent = try await bench.on {
                var sent = 0
                while sent < 100, a.transport.send(Self.number(sent, size: 1 << 20), to: b.id) {
                    sent += 1
                }
                a.transport.flush()
                return sent
            }
            #expect(sent == 7)
            try await bench.until("dropped and connected again") {
                a.events.count >= 3 && a.transport.isConnected(b.id)
            }
            try await bench.on {
                #expect(a.transport.statistics[b.id]?.overflows == 1)
                #expect(a.events.contains(.disconnected(b.id, lost: false)))
                #expect(a.notes.contains { if case .queueOverflow = $0 { true } else { false } })
                a.transport.send(Bytes("again"), to: b.id)
                a.transport.flush()
            }
            try await bench.until("frame") { b.frames[a.id]?.last == Bytes("again") }
        }
    }

    @Test func `A block silences both directions without a loss, and its end heals`() async throws {
        try await withBench { bench in
            let a = try await bench.start(peer(1)) {
                $0.faultInjection = true
                $0.silenceMax = .milliseconds(400)
            }
            let b = try await bench.start(peer(2)) { $0.silenceMax = .milliseconds(400) }
            try await bench.connect(a, b)
            try await bench.until("connected") {
                a.transport.isConnected(b.id) && b.transport.isConnected(a.id)
            }
            try await bench.on {
                a.transport.setFault(Fault(block: true), for: b.id)
                // Only where faults are switched on.
                b.transport.setFault(Fault(block: true), for: a.id)
                #expect(!a.transport.send(Bytes("lost"), to: b.id))
                b.transport.send(Bytes("lost too"), to: a.id)
                b.transport.flush()
            }
            try await bench.until("both notice") {
                !a.transport.isConnected(b.id) && !b.transport.isConnected(a.id)
            }
            try await Task.sleep(for: .milliseconds(500))
            try await bench.on {
                #expect(!a.events.contains(.disconnected(b.id, lost: true)))
                #expect(!b.events.contains(.disconnected(a.id, lost: true)))
                #expect(!a.transport.isConnected(b.id) && !b.transport.isConnected(a.id))
                a.transport.setFault(nil, for: b.id)
            }
            try await bench.until("healed") {
                a.transport.isConnected(b.id) && b.transport.isConnected(a.id)
            }
            try await bench.on {
                a.transport.send(Bytes("there"), to: b.id)
                b.transport.send(Bytes("back"), to: a.id)
                a.transport.flush()
                b.transport.flush()
            }
            try await bench.until("frames") {
                b.frames[a.id] == [Bytes("there")] && a.frames[b.id] == [Bytes("back")]
            }
        }
    }

    @Test func `The simulated distance delays frames to other regions and keeps their order`()
        async throws
    {
        try await withBench { bench in
            let a = try await bench.start(peer(1)) {
                $0.wanDelay = .milliseconds(200)
                $0.faultInjection = true
            }
            let near = try await bench.start(peer(2))
            let far = try await bench.start(peer(1, region: 2))
            try await bench.connect(a, near, far)
            try await bench.until("connected") {
                a.transport.isConnected(near.id) && a.transport.isConnected(far.id)
            }
            let start = NIODeadline.now()
            try await bench.on {
                a.transport.setFault(Fault(delay: .milliseconds(100)), for: far.id)
                for i in 0..<50 {
                    if i == 25 { a.transport.setFault(nil, for: far.id) }
                    a.transport.send(Self.number(i), to: far.id)
                    a.transport.send(Self.number(i), to: near.id)
                    a.transport.flush()
                }
            }
            try await bench.until("near") { near.frames[a.id]?.count == 50 }
            try await bench.on {
                #expect(far.frames.isEmpty || .now() - start > .milliseconds(200))
            }
            try await bench.until("far") { far.frames[a.id]?.count == 50 }
            #expect(.now() - start >= .milliseconds(300))
            try await bench.on {
                #expect(far.frames[a.id] == (0..<50).map { Self.number($0) })
            }
        }
    }

    @Test func `Removing a peer closes both connections; a taken port fails the start`()
        async throws
    {
        try await withBench { bench in
            let a = try await bench.start(peer(1))
            let b = try await bench.start(peer(2))
            try await bench.connect(a, b)
            try await bench.until("connected") {
                a.transport.isConnected(b.id) && b.transport.isConnected(a.id)
            }
            try await bench.on { a.transport.setPeers([:]) }
            try await bench.until("refused") {
                b.notes.contains(.refusedByPeer(a.id, reason: "r1-n2 is not a peer"))
            }
            await #expect(throws: (any Error).self) { try await bench.start(peer(3), port: a.port) }
        }
    }

    @Test func `A frame's receiver may shut the transport down`() async throws {
        try await withBench { bench in
            let a = try await bench.start(peer(1))
            let b = try await bench.start(peer(2))
            try await bench.connect(a, b)
            try await bench.until("connected") { a.transport.isConnected(b.id) }
            try await bench.on {
                b.onFrame = { [unowned b] _, _ in _ = b.transport.shutdown() }
                for i in 0..<3 { a.transport.send(Self.number(i), to: b.id) }
                a.transport.flush()
            }
            try await bench.until("lost") { a.events.last == .disconnected(b.id, lost: true) }
            try await bench.on { #expect(b.frames[a.id]?.count == 1) }
        }
    }
}
