import NIOCore
import NIOPosix
import Primitives
import Testing

@testable import NodeHost

@Suite struct AuthConfigurationTests {
    private func tokens(_ text: String) throws(AuthTokenError) -> AuthConfiguration.Tokens {
        try AuthConfiguration.tokens(text, simpleTimeToLive: .seconds(300)).tokens
    }

    @Test func `etcd's token options are read`() throws {
        #expect(try tokens("simple") == .simple(timeToLive: .seconds(300)))
        #expect(
            try tokens("jwt,pub-key=a.pem,priv-key=b.pem,sign-method=RS256,ttl=10m")
                == .web(
                    algorithm: "RS256", publicKey: "a.pem", privateKey: "b.pem",
                    timeToLive: .seconds(600)))
        #expect(
            try tokens("jwt,priv-key=s,sign-method=HS512")
                == .web(
                    algorithm: "HS512", publicKey: nil, privateKey: "s", timeToLive: .seconds(300)))
        #expect(
            try AuthConfiguration.tokens(
                "jwt,priv-key=s,sign-method=HS512,x=y", simpleTimeToLive: .zero
            ).unknown == ["x"])
    }

    @Test func `what is wrong with them is said`() {
        for text in [
            "", "cookie", "jwt", "jwt,sign-method=none", "jwt,sign-method=HS256,ttl=soon",
            "jwt,sign-method", "jwt,sign-method=HS256,sign-method=HS256", "jwt,a=b=c",
        ] {
            #expect(throws: AuthTokenError.self, "\(text)") { try tokens(text) }
        }
    }

    @Test func `the configuration is written as it is read`() throws {
        for text in ["simple", "jwt,sign-method=ES256,pub-key=/a,priv-key=/b,ttl=10m"] {
            var configuration = AuthConfiguration()
            configuration.tokens = try tokens(text)
            #expect(try tokens(configuration.tokenText) == configuration.tokens)
        }
    }

    @Test func `passwords are hashed as etcd hashes them, and etcd's hashes are known`() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        var configuration = AuthConfiguration()
        configuration.bcryptCost = 4
        let worker = try PasswordWorker(configuration, loop: loop)
        func hash(_ password: String) async throws -> Bytes? {
            try await loop.flatSubmit {
                let promise = loop.makePromise(of: Bytes?.self)
                #expect(worker.hash(Bytes(password)) { promise.succeed($0) })
                return promise.futureResult
            }.get()
        }
        func check(_ password: Bytes, _ hash: Bytes) async throws -> Bool {
            try await loop.flatSubmit {
                let promise = loop.makePromise(of: Bool.self)
                #expect(worker.check(password, against: hash) { promise.succeed($0) })
                return promise.futureResult
            }.get()
        }
        let own = try #require(try await hash("secret"))
        #expect(own.starts(with: "$2a$04$") && own.count == 60)
        #expect(try await hash("secret") != own)
        #expect(try await check("secret", own))
        #expect(try await !check("Secret", own))
        #expect(try await !check("", own))
        // Of Go's bcrypt tests, and one with the bytes on which the library's own 2a differs.
        #expect(
            try await check(
                "allmine", "$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga"))
        let strange = try #require(try await hash("x"))
        #expect(try await check("x", strange))
        for broken in ["", "$2a$04$", "plain", "$2a$04$short", "*0"] {
            #expect(try await !check("secret", Bytes(broken)), "\(broken)")
        }
        worker.close()
        try await group.shutdownGracefully()
    }
}
