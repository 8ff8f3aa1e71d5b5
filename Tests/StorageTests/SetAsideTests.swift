import Glibc
import Primitives
import Testing

@testable import Storage

@Suite struct SetAsideTests {
    private let scratch = Scratch()
    private var path: String { scratch.path }
    private var aside: String { path + "/" + SetAside.name }

    private func fill() throws {
        try Scratch.write(Array("4711\n".utf8), path + "/lock")
        try Scratch.write(Array("who I was".utf8), path + "/identity")
        try Posix.makeDirectory(path + "/wal")
        try Scratch.write([1, 2, 3], path + "/wal/0001.wal")
        try Posix.makeDirectory(path + "/store")
        try Scratch.write(Array("damaged".utf8), path + "/store-damaged")
    }

    /// All of it is in there, and nothing but the lock is left outside.
    private func isWhole() throws -> Bool {
        try Posix.names(in: path) == ["lock", SetAside.name]
            && Posix.names(in: aside) == ["identity", "reason", "store", "store-damaged", "wal"]
            && Posix.readFile(aside + "/wal/0001.wal") == [1, 2, 3]
    }

    @Test func everythingGoesAsideButTheLock() throws {
        try fill()
        #expect(!SetAside.isThere(in: path))
        try SetAside.finish(in: path)
        #expect(Posix.exists(path + "/identity"), "nothing was begun")
        let hasBegun = try SetAside.begin(in: path, reason: "a bad\ndisk")
        #expect(hasBegun)
        #expect(try isWhole())
        #expect(try SetAside.reason(in: path) == "a bad disk")
        #expect(try DataDirectory.identity(at: path) == nil, "it is a new node's")
    }

    /// It has been begun, and each number of things has been moved when the machine stops.
    @Test(arguments: 0..<4) func aCrashInBetweenIsMadeGoodAtTheNextStart(moved: Int) throws {
        try fill()
        try Posix.makeDirectory(aside)
        try Scratch.write(Array("a bad disk\n".utf8), aside + "/reason")
        for name in ["identity", "store", "store-damaged"].prefix(moved) {
            try Posix.rename(path + "/" + name, aside + "/" + name)
        }
        try SetAside.finish(in: path)
        #expect(try isWhole())
    }

    @Test func whatIsBegunAnewStaysWhereItIs() throws {
        try fill()
        _ = try SetAside.begin(in: path, reason: "a bad disk")
        try Scratch.write(Array("who I am".utf8), path + "/identity")
        try Posix.makeDirectory(path + "/wal")
        try SetAside.finish(in: path)
        #expect(try Posix.names(in: path) == ["identity", "lock", SetAside.name, "wal"])
        // Damaged again before it has got everything: that is for people.
        let isAgain = try SetAside.begin(in: path, reason: "again")
        #expect(!isAgain)
        #expect(try SetAside.reason(in: path) == "a bad disk")
        #expect(try Posix.readFile(path + "/identity") == Array("who I am".utf8))
    }

    /// Its identity is the first file that goes, and the new one must not follow it.
    @Test func halfRemovedItIsNotTakenForBegun() throws {
        try fill()
        _ = try SetAside.begin(in: path, reason: "a bad disk")
        try Scratch.write(Array("who I am".utf8), path + "/identity")
        let gone = try #require(try SetAside.retire(in: path))
        try Posix.remove(gone + "/identity")
        try SetAside.finish(in: path)
        #expect(!SetAside.isThere(in: path))
        #expect(try Posix.readFile(path + "/identity") == Array("who I am".utf8))
        #expect(try SetAside.retire(in: path) == gone, "the rest of it")
        Scratch.remove(gone)
        #expect(try SetAside.retire(in: path) == nil)
        let isAgain = try SetAside.begin(in: path, reason: "years later")
        #expect(isAgain)
    }
}
