import Foundation
import Testing

/// What the compiler cannot check (docs/testing.md): purity, sizes, no leftovers.
@Suite struct TidyTests {
    private static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    private static let pureModules = [
        "Primitives", "Consensus", "Partitioning", "GeoReplication", "Node",
    ]

    struct File {
        let path: String
        let lines: [Substring]
        var isGenerated: Bool { path.contains("/Generated/") }
    }

    private static func files(under folder: String) -> [File] {
        let base = root.appendingPathComponent(folder)
        let walker = FileManager.default.enumerator(at: base, includingPropertiesForKeys: nil)
        var found: [File] = []
        while let url = walker?.nextObject() as? URL {
            guard url.pathExtension == "swift",
                let text = try? String(contentsOf: url, encoding: .utf8)
            else { continue }
            let path = String(url.path.dropFirst(root.path.count + 1))
            found.append(
                File(path: path, lines: text.split(separator: "\n", omittingEmptySubsequences: false)))
        }
        return found.sorted { $0.path < $1.path }
    }

    private static let sources = files(under: "Sources"), tests = files(under: "Tests")

    /// The code of a line, without its comment.
    private func code(_ line: Substring) -> Substring {
        line.range(of: "//").map { line[..<$0.lowerBound] } ?? line
    }

    private func offences(_ files: [File], _ isOffence: (Substring) -> Bool) -> [String] {
        files.flatMap { file in
            file.lines.enumerated().filter { isOffence($0.element) }
                .map { "\(file.path):\($0.offset + 1): \($0.element)" }
        }
    }

    private var pure: [File] {
        TidyTests.sources.filter { file in
            TidyTests.pureModules.contains { file.path.hasPrefix("Sources/\($0)/") }
        }
    }

    @Test func `sources were found`() {
        #expect(TidyTests.sources.count > 20)
        #expect(pure.count > 10)
    }

    @Test func `pure modules import only pure modules and collections`() {
        let allowed = Set(TidyTests.pureModules + ["DequeModule"])
        let found = offences(pure) { line in
            let words = line.split(separator: " ")
            guard let at = words.firstIndex(of: "import"), at <= 1, words.count > at + 1,
                !line.hasPrefix(" "), !line.hasPrefix("//")
            else { return false }
            return !allowed.contains(String(words[at + 1]))
        }
        #expect(found.isEmpty, "\(found.joined(separator: "\n"))")
    }

    @Test func `siblings do not import siblings`() {
        for module in ["Consensus", "Partitioning", "GeoReplication"] {
            let others = ["Consensus", "Partitioning", "GeoReplication", "Node"].filter { $0 != module }
            let own = TidyTests.sources.filter { $0.path.hasPrefix("Sources/\(module)/") }
            let found = offences(own) { line in
                others.contains { line.hasSuffix("import \($0)") && !line.hasPrefix("//") }
            }
            #expect(found.isEmpty, "\(found.joined(separator: "\n"))")
        }
    }

    @Test func `pure modules have no clock, luck, task or process-seeded hash`() {
        let forbidden = [
            "Date(", "Task {", "Task.", "ContinuousClock", "SuspendingClock", "DispatchTime",
            "SystemRandomNumberGenerator", ".random(in", ".randomElement(", ".shuffled(",
            ".shuffle(", "clock_gettime", "Hasher(", "UUID(", " async ", "await ", " print(",
        ]
        let found = offences(pure) { line in
            forbidden.contains { (" " + code(line)).contains($0) }
        }
        #expect(found.isEmpty, "\(found.joined(separator: "\n"))")
    }

    @Test func `files and lines stay within bounds`() {
        let all = (TidyTests.sources + TidyTests.tests).filter { !$0.isGenerated }
        let long = all.filter { $0.lines.count > 801 }.map { "\($0.path): \($0.lines.count) lines" }
        #expect(long.isEmpty, "\(long.joined(separator: "\n"))")
        // 100 columns are meant; 120 are refused. Texts may be longer than code.
        let wide = all.filter { !$0.path.hasSuffix("Page.swift") }.flatMap { file in
            offences([file]) { $0.count > 120 && !$0.contains("\"") }
        }
        #expect(wide.isEmpty, "\(wide.joined(separator: "\n"))")
    }

    @Test func `nothing unfinished is left in`() {
        // Split, so that this file does not find itself.
        let marker = "FIX" + "ME"
        let found = offences(TidyTests.sources + TidyTests.tests) { $0.contains(marker) }
        #expect(found.isEmpty, "\(found.joined(separator: "\n"))")
    }

    @Test func `errors are neither forced nor swallowed in sources`() {
        let all = TidyTests.sources.filter { !$0.isGenerated }
        let found = offences(all) { code($0).contains("try!") || code($0).contains("catch {}") }
        #expect(found.isEmpty, "\(found.joined(separator: "\n"))")
    }

    @Test func `every module has a README that says something`() throws {
        let folder = TidyTests.root.appendingPathComponent("Sources")
        let modules = try FileManager.default.contentsOfDirectory(atPath: folder.path)
            .filter { name in TidyTests.sources.contains { $0.path.hasPrefix("Sources/\(name)/") } }
        for module in modules.sorted() {
            let readme = folder.appendingPathComponent("\(module)/README.md")
            let text = (try? String(contentsOf: readme, encoding: .utf8)) ?? ""
            #expect(text.count > 100, "Sources/\(module)/README.md is missing or empty")
        }
    }
}
