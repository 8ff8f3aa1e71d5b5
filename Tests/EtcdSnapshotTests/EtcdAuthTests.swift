import BoltFile
import Foundation
import Glibc
import Primitives
import Testing

@testable import EtcdSnapshot

@Suite struct EtcdAuthTests {
    private func state(_ commands: [AuthCommand]) throws -> AuthState {
        var state = AuthState()
        var changed: [AuthState.Change] = []
        for command in commands { try state.apply(command, by: nil, changed: &changed) }
        return state
    }

    @Test func `users, roles and permissions come back from etcd's messages as they went`() throws {
        let before = try state([
            .roleAdd("root"), .roleAdd("reader"),
            .roleGrantPermission("reader", Permission(.read, KeyRange(key: "a", end: "b"))),
            .roleGrantPermission("reader", Permission(.readWrite, KeyRange(key: "x"))),
            .roleGrantPermission("reader", Permission(.write, KeyRange(key: "y", end: Bytes([0])))),
            .userAdd("root", hash: "$2a$10$hash"), .userGrantRole("root", role: "root"),
            .userAdd("certified", hash: nil), .userAdd("empty", hash: ""),
            .userGrantRole("certified", role: "reader"),
            .enable(secret: "01234567890123456789012345678901"),
        ])
        let file = EtcdAuth.file(before)
        #expect(file.isEnabled && file.revision == before.revision)
        let after = try EtcdAuth.state(of: file, secret: "01234567890123456789012345678901")
        #expect(after.roles == before.roles)
        #expect(after.users.mapValues(\.roles) == before.users.mapValues(\.roles))
        #expect(after.users.mapValues(\.hash) == before.users.mapValues(\.hash))
        #expect(after.isEnabled && after.secret == before.secret)
        #expect(after.revision >= before.revision)
    }

    @Test func `what etcd wrote is understood, and enabling needs root`() throws {
        let url = try #require(Bundle.module.url(forResource: "Golden/etcd-3.5", withExtension: "snapshot"))
        let descriptor = open(url.path, O_RDONLY)
        defer { close(descriptor) }
        var status = stat()
        fstat(descriptor, &status)
        let reader = try EtcdBackendReader(
            BoltReader(descriptor: descriptor, limit: UInt64(status.st_size) - 32))
        var file = try reader.state().auth
        let state = try EtcdAuth.state(of: file, secret: .empty)
        #expect(state.users["root"]?.isRoot == true)
        #expect(state.users["root"]?.hash?.count == 60)
        file.isEnabled = true
        file.users = []
        #expect(throws: BoltError.self) { _ = try EtcdAuth.state(of: file, secret: .empty) }
    }

    @Test func `rubbish in place of users and roles is refused`() throws {
        for rubbish in [Bytes([0x0A, 0x7F]), Bytes([0x1A, 0xFF]), Bytes([0x22, 2, 0xFF, 0xFF])] {
            var file = EtcdState.Auth()
            file.users = [("u", rubbish)]
            #expect(throws: BoltError.self) { _ = try EtcdAuth.state(of: file, secret: .empty) }
        }
        var file = EtcdState.Auth()
        file.roles = [("r", Bytes([0x12, 2, 0x08, 0x09]))]
        #expect(throws: BoltError.self) { _ = try EtcdAuth.state(of: file, secret: .empty) }
    }
}
