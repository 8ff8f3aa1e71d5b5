import EtcdAPI
import Primitives

/// Makes tokens, and knows whom they stand for.
///
/// A simple token says whom it is for and since when, and is signed with the secret that all nodes of the
/// region share: valid at each of them without a word between them, and after restarts. It ends when it
/// has not been used on a node for its time to live, with the user's password, and when authentication
/// is turned off. A JSON web token is etcd's: `username`, `revision`, `exp`.
final class TokenKeeper {
    private let services: AuthServices
    private let nonceBytes = 8
    private let macBytes = 16
    /// A token may come from a node whose clock is ahead by so much.
    private let skewSeconds: Int64 = 60
    static let sessionsMax = 20_000
    static let tokenBytesMax = 16_384

    private var sessions: [String: Session] = [:]
    private var certificates: [String: Session] = [:]
    /// Those that were shown last, by the end of their text: neither hashed nor read again.
    private var recent = [Session?](repeating: nil, count: 64)

    init(_ services: AuthServices) { self.services = services }

    var settings: AuthSettings { services.settings }

    var count: Int { sessions.count }

    private var timeToLive: TimeSpan {
        switch services.settings.tokens {
        case .simple(let span), .web(_, let span): span
        }
    }
    private var secondsToLive: Int64 { Int64(clamping: timeToLive.nanoseconds / 1_000_000_000) }

    // MARK: Making

    /// nil: no key to sign with.
    func make(for user: Bytes, in state: AuthState) -> String? {
        guard let known = state.users[user] else { return nil }
        switch services.settings.tokens {
        case .simple:
            var writer = ByteWriter(capacity: 64)
            writer.byte(1)
            writer.varint(known.since)
            writer.varint(state.enabledSince)
            writer.fixed64(UInt64(bitPattern: services.crypto.wallSeconds))
            writer.raw(services.crypto.random(nonceBytes))
            writer.raw(user)
            let mac = services.crypto.mac(of: writer.bytes, secret: state.secret)
            return Base64URL.encode(writer.bytes + mac.prefix(macBytes))
        case .web(let algorithm, _):
            let token = WebToken(
                user: user, revision: state.revision,
                expires: services.crypto.wallSeconds + secondsToLive)
            let text = token.signingText(algorithm: algorithm)
            guard let signature = services.crypto.sign(Array(text.utf8)) else { return nil }
            return text + "." + Base64URL.encode(signature)
        }
    }

    // MARK: Knowing

    func session(certificate name: String) -> Session {
        if let known = certificates[name] { return known }
        if certificates.count >= Self.sessionsMax { certificates.removeAll() }
        let session = Session(
            token: nil, user: Bytes(name), kind: .certificate, usedAt: .zero)
        certificates[name] = session
        return session
    }

    /// The session of a token that was shown before, if nothing has changed that it rests on; nil: look
    /// closer. `version` is that of the users and roles.
    func knownSession(token: String, version: UInt64, at now: Instant) -> Session? {
        guard let session = recent[Self.place(token)], session.validVersion == version,
            session.token == token
        else { return nil }
        switch session.kind {
        case .simple:
            guard now.since(session.usedAt) <= timeToLive else { return nil }
            session.usedAt = max(session.usedAt, now)
        case .web(_, let expires):
            guard services.crypto.wallSeconds < expires else { return nil }
        case .certificate: break
        }
        return session
    }

    /// Of both kinds of tokens the end is a signature's: as good as chance, and whoever forges one pushes
    /// another out of its place and no more.
    private static func place(_ token: String) -> Int {
        token.utf8.withContiguousStorageIfAvailable { bytes in
            var place: UInt8 = 0
            for byte in bytes.suffix(4) { place = place &* 5 &+ byte }
            return Int(place & 63)
        } ?? 0
    }

    /// nil: not a token that holds now.
    func session(token: String, in state: AuthState, at now: Instant) -> Session? {
        var found = sessions[token]
        if let known = found, !isValid(known, in: state, at: now) {
            sessions[token] = nil
            recent[Self.place(token)] = nil
            // A simple token that was at rest for too long stays ended here, though it looks young.
            if case .simple = known.kind { return nil }
            found = nil
        }
        guard let session = found ?? read(token, in: state, at: now) else { return nil }
        if found == nil {
            if sessions.count >= Self.sessionsMax { prune(in: state, at: now) }
            sessions[token] = session
        }
        recent[Self.place(token)] = session
        return session
    }

    private func isValid(_ session: Session, in state: AuthState, at now: Instant) -> Bool {
        switch session.kind {
        case .simple(let since, let enabledSince):
            guard enabledSince == state.enabledSince, state.users[session.user]?.since == since,
                now.since(session.usedAt) <= timeToLive
            else { return false }
            session.usedAt = max(session.usedAt, now)
            session.validVersion = state.version
            return true
        case .web(_, let expires): return services.crypto.wallSeconds < expires
        case .certificate: return true
        }
    }

    private func read(_ token: String, in state: AuthState, at now: Instant) -> Session? {
        guard token.utf8.count <= Self.tokenBytesMax else { return nil }
        switch services.settings.tokens {
        case .simple: return readSimple(token, in: state, at: now)
        case .web(let algorithm, _):
            guard let (read, text, signature) = WebToken.read(token, algorithm: algorithm),
                services.crypto.verify(Array(text), signature: signature),
                services.crypto.wallSeconds < read.expires,
                services.crypto.wallSeconds >= read.notBefore
            else { return nil }
            return Session(
                token: token, user: read.user,
                kind: .web(revision: read.revision, expires: read.expires), usedAt: now)
        }
    }

    private func readSimple(_ token: String, in state: AuthState, at now: Instant) -> Session? {
        guard !state.secret.isEmpty, let bytes = Base64URL.decode(token.utf8),
            bytes.count > macBytes
        else { return nil }
        let body = Array(bytes.dropLast(macBytes))
        let mac = services.crypto.mac(of: body, secret: state.secret)
        guard isEqualInConstantTime(mac.prefix(macBytes), bytes.suffix(macBytes)) else { return nil }
        var reader = ByteReader(Bytes(body))
        guard let version = try? reader.byte(), version == 1, let since = try? reader.varint(),
            let enabledSince = try? reader.varint(), let issued = try? reader.fixed64(),
            (try? reader.raw(nonceBytes)) != nil, let user = try? reader.raw(reader.remaining)
        else { return nil }
        let (age, isAbsurd) = services.crypto.wallSeconds.subtractingReportingOverflow(
            Int64(bitPattern: issued))
        guard !isAbsurd, age <= secondsToLive, age >= -skewSeconds else { return nil }
        let session = Session(
            token: token, user: user.compact(),
            kind: .simple(since: since, enabledSince: enabledSince), usedAt: now)
        return isValid(session, in: state, at: now) ? session : nil
    }

    /// What has ended goes; if that is not enough, everything: it is read again when it is shown.
    private func prune(in state: AuthState, at now: Instant) {
        let timeToLive = timeToLive
        sessions = sessions.filter { now.since($0.value.usedAt) <= timeToLive }
        if sessions.count >= Self.sessionsMax * 3 / 4 { sessions.removeAll() }
    }
}

func isEqualInConstantTime(_ a: some Sequence<UInt8>, _ b: some Sequence<UInt8>) -> Bool {
    let a = Array(a), b = Array(b)
    guard a.count == b.count else { return false }
    var difference: UInt8 = 0
    for (x, y) in zip(a, b) { difference |= x ^ y }
    return difference == 0
}
