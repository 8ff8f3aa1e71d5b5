import Primitives
import Testing

private func range(_ key: String, _ end: String = "") -> KeyRange {
    KeyRange(key: Bytes(key), end: Bytes(end))
}
private let fromKey = "\0"

@Suite struct KeyIntervalsTests {
    @Test func `a single key covers itself and nothing else`() {
        let set = KeyIntervals([range("k")])
        #expect(set.contains("k"))
        #expect(!set.contains("j") && !set.contains("k\0") && !set.contains("ka"))
        #expect(set.contains(range("k")))
        #expect(set.contains(range("k", "k\0")))
        #expect(!set.contains(range("k", "l")))
    }

    @Test func `a range covers what lies in it, its end left out`() {
        let set = KeyIntervals([range("a", "c")])
        #expect(set.contains("a") && set.contains("bzzz") && !set.contains("c"))
        #expect(set.contains(range("a", "c")) && set.contains(range("b", "bb")))
        #expect(!set.contains(range("a", "c\0")) && !set.contains(range("A", "b")))
        #expect(!set.contains(range("a", fromKey)))
    }

    @Test func `an open range covers everything from its key on`() {
        let set = KeyIntervals([range("m", fromKey)])
        #expect(set.contains(range("m", fromKey)) && set.contains(range("z", fromKey)))
        #expect(set.contains("\u{7F}") && !set.contains("l"))
        #expect(!set.contains(.everything))
        #expect(KeyIntervals([.everything]).contains(.everything))
    }

    @Test func `permissions that touch or overlap cover a range together`() {
        let set = KeyIntervals([range("c", "e"), range("a", "c"), range("d", "g"), range("g")])
        #expect(set.contains(range("a", "g")) && set.contains(range("a", "g\0")))
        #expect(!set.contains(range("a", "h")))
        let gap = KeyIntervals([range("a", "c"), range("c\0", "e")])
        #expect(!gap.contains(range("a", "e")))
        #expect(KeyIntervals([range("a", "c"), range("c"), range("c\0", "e")]).contains(range("a", "e")))
    }

    @Test func `a range without keys is never permitted`() {
        let set = KeyIntervals([.everything])
        #expect(!set.contains(range("z", "a")) && !set.contains(range("k", "k")))
        #expect(KeyIntervals([range("z", "a")]).isEmpty)
    }

    @Test func `what it says agrees with looking at every permission`() {
        var random = SplitMix(seed: 7)
        func key() -> Bytes { Bytes((0..<(1 + random.next() % 2)).map { _ in UInt8(random.next() % 4) }) }
        for _ in 0..<2_000 {
            var ranges: [KeyRange] = []
            for _ in 0..<(random.next() % 5) {
                let kind = random.next() % 4
                ranges.append(
                    KeyRange(key: key(), end: kind == 0 ? .empty : kind == 1 ? Bytes([0]) : key()))
            }
            let set = KeyIntervals(ranges)
            let one = key()
            #expect(set.contains(one) == ranges.contains { $0.contains(one) }, "\(ranges) \(one)")
            let asked = KeyRange(key: key(), end: key())
            // All keys of three bytes of the alphabet stand for all keys.
            let isCovered = universe.filter(asked.contains).allSatisfy { k in ranges.contains { $0.contains(k) } }
            if !asked.isEmpty, set.contains(asked) { #expect(isCovered, "\(ranges) \(asked)") }
            if asked.isEmpty { #expect(!set.contains(asked)) }
        }
    }

    private var universe: [Bytes] {
        var all: [Bytes] = []
        for a in UInt8(0)..<4 {
            all.append(Bytes([a]))
            for b in UInt8(0)..<4 {
                all.append(Bytes([a, b]))
                for c in UInt8(0)..<4 { all.append(Bytes([a, b, c])) }
            }
        }
        return all
    }
}

@Suite struct GrantsTests {
    private func grants(_ permissions: [Permission], root: Bool = false) -> Grants {
        var state = AuthState()
        var changed: [AuthState.Change] = []
        func apply(_ command: AuthCommand) {
            do throws(AuthError) {
                try state.apply(command, by: nil, changed: &changed)
            } catch {
                Issue.record("\(command): \(error)")
            }
        }
        apply(.userAdd("u", hash: "h"))
        apply(.roleAdd("r"))
        for permission in permissions { apply(.roleGrantPermission("r", permission)) }
        apply(.userGrantRole("u", role: root ? "root" : "r"))
        return state.users["u"].map { Grants(of: $0, in: state) }
            ?? Grants(of: .init(hash: nil, since: 0), in: state)
    }

    @Test func `root may do everything`() {
        let root = grants([], root: true)
        #expect(root.mayRead(.everything) && root.mayWrite(.everything))
        #expect(root.permits(Transaction(success: [.delete(Delete(range: .everything))])))
    }

    @Test func `a transaction is permitted only with all that it names on any branch`() {
        let own = grants([
            Permission(.read, range("r", "s")), Permission(.write, range("w", "x")),
            Permission(.readWrite, range("b")),
        ])
        func permits(
            compare: String? = nil, _ success: [Operation] = [], otherwise failure: [Operation] = []
        ) -> Bool {
            own.permits(
                Transaction(
                    compares: compare.map {
                        [Compare(range: range($0), relation: .equal, target: .version(0))]
                    } ?? [], success: success, failure: failure))
        }
        let put = Operation.put(Put(key: "w1", value: "v"))
        #expect(permits([put]))
        #expect(permits(compare: "r1", [put], otherwise: [.range(RangeQuery(range: range("r2")))]))
        #expect(!permits(compare: "w1", [put]))
        #expect(!permits([put], otherwise: [.range(RangeQuery(range: range("w1")))]))
        #expect(!permits([.put(Put(key: "w1", value: "v", wantsPrevious: true))]))
        #expect(permits([.put(Put(key: "b", value: "v", wantsPrevious: true))]))
        #expect(permits([.delete(Delete(range: range("w", "x")))]))
        #expect(!permits([.delete(Delete(range: range("w", "x"), wantsPrevious: true))]))
        #expect(!permits([.delete(Delete(range: range("w", "y")))]))
        let hidden = Operation.transaction(
            Transaction(success: [], failure: [.put(Put(key: "r1", value: "v"))]))
        #expect(!permits([put, hidden]))
        #expect(!permits([], otherwise: [.transaction(Transaction(success: [hidden]))]))
    }
}

@Suite struct AuthStateTests {
    private var state = AuthState()
    private var changed: [AuthState.Change] = []

    private mutating func run(_ command: AuthCommand, by: Bytes? = nil) -> AuthError? {
        do throws(AuthError) {
            try state.apply(command, by: by, changed: &changed)
            return nil
        } catch {
            return error
        }
    }

    private mutating func enabled() {
        #expect(run(.userAdd("root", hash: "h")) == nil)
        #expect(run(.userGrantRole("root", role: "root")) == nil)
        #expect(run(.enable(secret: "s")) == nil)
    }

    @Test mutating func `authentication wants a root user with the root role`() {
        #expect(run(.enable(secret: "s")) == .rootUserMissing)
        #expect(run(.userAdd("root", hash: "h")) == nil)
        #expect(run(.enable(secret: "s")) == .rootRoleMissing)
        #expect(run(.userGrantRole("root", role: "root")) == nil)
        let revision = state.revision
        #expect(run(.enable(secret: "s")) == nil)
        #expect(state.isEnabled && state.revision == revision && state.enabledSince == revision)
    }

    @Test mutating func `while it is on only root changes anything`() {
        enabled()
        #expect(run(.userAdd("a", hash: "h")) == .userEmpty)
        #expect(run(.userAdd("a", hash: "h"), by: "nobody") == .userNotFound)
        #expect(run(.userAdd("a", hash: "h"), by: "root") == nil)
        #expect(run(.disable, by: "a") == .permissionDenied)
        #expect(run(.userDelete("root"), by: "root") == .invalidManagement)
        #expect(run(.userRevokeRole("root", role: "root"), by: "root") == .invalidManagement)
        #expect(run(.roleDelete("root"), by: "root") == .invalidManagement)
        #expect(run(.disable, by: "root") == nil)
        #expect(run(.userDelete("root")) == nil)
    }

    @Test mutating func `changes that do nothing take no revision, all others one`() {
        #expect(run(.userAdd("u", hash: nil)) == nil)
        #expect(run(.roleAdd("r")) == nil)
        #expect(run(.userGrantRole("u", role: "r")) == nil)
        #expect(state.revision == 4 && state.version == 3)
        #expect(run(.userGrantRole("u", role: "r")) == nil)
        #expect(run(.disable) == nil)
        #expect(state.revision == 4 && state.version == 3)
        #expect(run(.userChangePassword("u", hash: "h")) == nil)
        #expect(state.users["u"]?.hash == nil && state.users["u"]?.since == 5)
        #expect(run(.roleDelete("r")) == nil)
        #expect(state.users["u"]?.roles == [] && state.revision == 6)
    }

    @Test mutating func `the fence rises with what may forbid something, and only while it is on`() {
        #expect(run(.userAdd("u", hash: "h")) == nil)
        #expect(run(.userDelete("u")) == nil)
        #expect(state.fence == 0)
        enabled()
        #expect(state.fence == 1)
        #expect(run(.userAdd("u", hash: "h"), by: "root") == nil)
        #expect(run(.roleAdd("r"), by: "root") == nil)
        #expect(run(.userGrantRole("u", role: "r"), by: "root") == nil)
        #expect(state.fence == 1)
        #expect(run(.userRevokeRole("u", role: "r"), by: "root") == nil)
        #expect(state.fence == 2)
        #expect(run(.disable, by: "root") == nil)
        #expect(state.fence == 2)
    }

    @Test mutating func `permissions of a role are in order of their keys, one for a range`() {
        #expect(run(.roleAdd("r")) == nil)
        for key in ["m", "a", "z"] {
            #expect(run(.roleGrantPermission("r", Permission(.read, range(key)))) == nil)
        }
        #expect(run(.roleGrantPermission("r", Permission(.read, range("a", "b")))) == nil)
        #expect(run(.roleGrantPermission("r", Permission(.write, range("m")))) == nil)
        #expect(
            state.roles["r"] == [
                Permission(.read, range("a")), Permission(.read, range("a", "b")),
                Permission(.write, range("m")), Permission(.read, range("z")),
            ])
        #expect(run(.roleGrantPermission("r", Permission(.read, range("z", "a")))) == .invalidManagement)
        #expect(run(.roleRevokePermission("r", range("a", "c"))) == .permissionNotGranted)
        #expect(run(.roleRevokePermission("r", range("a", "b"))) == nil)
        #expect(state.roles["r"]?.count == 3)
    }

    @Test mutating func `its records bring it back`() throws {
        enabled()
        for command in [
            AuthCommand.userAdd("u", hash: nil), .roleAdd("r"), .userGrantRole("u", role: "r"),
            .roleGrantPermission("r", Permission(.readWrite, range("a", "b"))),
            .roleGrantPermission("r", Permission(.read, range("c", fromKey))),
        ] {
            #expect(run(command, by: "root") == nil)
        }
        var restored = AuthState()
        var scalars = ByteReader(state.encodedScalars())
        try restored.restoreScalars(&scalars)
        for name in state.users.keys {
            var reader = ByteReader(try #require(state.encodedUser(name)))
            try restored.restoreUser(name, &reader)
        }
        for name in state.roles.keys {
            var reader = ByteReader(try #require(state.encodedRole(name)))
            try restored.restoreRole(name, &reader)
        }
        #expect(restored == state)
    }

    @Test func `commands survive the wire`() throws {
        let commands: [AuthCommand] = [
            .enable(secret: "secret"), .disable, .userAdd("u", hash: "h"), .userAdd("u", hash: nil),
            .userDelete("u"), .userChangePassword("u", hash: "h"), .userGrantRole("u", role: "r"),
            .userRevokeRole("u", role: "r"), .roleAdd("r"), .roleDelete("r"),
            .roleGrantPermission("r", Permission(.write, range("a", "b"))),
            .roleRevokePermission("r", range("a", fromKey)),
        ]
        for command in commands {
            for by in [nil, Bytes("root")] {
                var writer = ByteWriter()
                writer.request(.auth(command, by: by))
                var reader = ByteReader(Bytes(writer.bytes))
                #expect(try reader.request() == .auth(command, by: by))
                #expect(reader.isAtEnd)
            }
        }
        for error in [nil, AuthError.userExists, .tooMany] {
            var writer = ByteWriter()
            writer.response(.auth(error, revision: Revision(7)))
            var reader = ByteReader(Bytes(writer.bytes))
            #expect(try reader.response() == .auth(error, revision: Revision(7)))
        }
    }
}
