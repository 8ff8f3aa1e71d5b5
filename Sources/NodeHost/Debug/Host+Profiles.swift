import CLinux
import EtcdAPI
import EtcdFacade
import Glibc
import Logging
import NIOCore
import NIOPosix
import Primitives

/// /debug/pprof/, for those who start with --enable-pprof: what of Go's pages a Swift program can truly fill.
/// A CPU profile for `go tool pprof` (or as folded stacks, for flame graphs), the allocator's own report, and
/// the threads. What Go tells of goroutines, of blocking and of single allocations does not exist here.
extension Host {
    private static let prefix = "/debug/pprof"
    /// As Go's: half a minute unless somebody says otherwise.
    private static let secondsUsual = 30.0
    private static let secondsMax = 300.0

    static func isProfilePath(_ target: String) -> Bool {
        let path = target.prefix { $0 != "?" }
        return path == prefix || path.hasPrefix(prefix + "/")
    }

    func onProfile(_ request: HTTPRequest, _ responder: HTTPResponder) {
        guard configuration.access.profiles else {
            return responder.respond(Self.page(404, "404 page not found\n"))
        }
        let parts = request.target.split(separator: "?", maxSplits: 1)
        let query = (parts.count > 1 ? parts[1].split(separator: "&") : []).map {
            $0.split(separator: "=", maxSplits: 1).map(String.init)
        }
        func value(_ name: String) -> String? {
            query.first { $0.first == name }.map { $0.count > 1 ? $0[1] : "" }
        }
        let isText = value("debug").map { $0 != "0" } ?? false
        switch parts.first?.dropFirst(Self.prefix.count + 1) ?? "" {
        case "" where !request.target.hasPrefix(Self.prefix + "/"):
            var response = Self.page(301, "")
            response.headers.insert(("location", Self.prefix + "/"), at: 0)
            responder.respond(response)
        case "": responder.respond(Self.index)
        case "cmdline":
            responder.respond(Self.page(200, CommandLine.arguments.joined(separator: "\0")))
        case "profile":
            let seconds = value("seconds").flatMap(Double.init) ?? 0
            sample(
                for: seconds > 0 ? min(seconds, Self.secondsMax) : Self.secondsUsual,
                asText: isText, responder)
        case "heap", "allocs":
            inBackground(responder) { Self.page(200, Self.allocatorReport()) }
        case "threadcreate":
            inBackground(responder) { Self.page(200, Self.threadReport()) }
        case "symbol":
            let addresses = request.method == "POST"
                ? String(decoding: request.body.array, as: UTF8.self) : parts.count > 1 ? String(parts[1]) : ""
            inBackground(responder) { Self.page(200, Self.names(of: addresses)) }
        default: responder.respond(Self.page(404, "Unknown profile\n"))
        }
    }

    private func sample(for seconds: Double, asText: Bool, _ responder: HTTPResponder) {
        guard let profile = CPUProfile.begin() else {
            return responder.respond(
                Self.page(500, "Could not enable CPU profiling: cpu profiling already in use\n"))
        }
        logger.notice("profiling", metadata: ["seconds": "\(seconds)"])
        var isOver = false
        func end() {
            guard !isOver else { return }
            isOver = true
            inBackground(responder) {
                let samples = profile.end()
                var symbols = Symbols()
                if asText { return Self.page(200, Self.folded(samples, &symbols)) }
                return HTTPResponse(
                    status: 200,
                    headers: [
                        ("content-type", "application/octet-stream"),
                        ("content-disposition", "attachment; filename=\"profile\""),
                        ("x-content-type-options", "nosniff"),
                    ], body: Bytes(ProfileFile(samples, &symbols).bytes))
            }
        }
        let timer = loop.assumeIsolated().scheduleTask(in: .milliseconds(Int64(seconds * 1000))) { end() }
        // Nobody waits for it any more.
        responder.onClosed = {
            timer.cancel()
            end()
        }
    }

    /// Reads files, or waits: not for the loop.
    private func inBackground(
        _ responder: HTTPResponder, _ make: @escaping @Sendable () -> HTTPResponse
    ) {
        startThreads()
        let relay = ResponderRelay(responder)
        threads.submit { _ in
            let response = make()
            self.loop.execute { relay.respond(response) }
        }
    }

    // MARK: Pages

    private static func page(_ status: Int, _ text: String) -> HTTPResponse {
        HTTPResponse(
            status: status,
            headers: [
                ("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff"),
            ], body: Bytes(text))
    }

    private static let index = HTTPResponse(
        status: 200, contentType: "text/html; charset=utf-8",
        """
        <html><head><title>/debug/pprof/</title></head><body>
        <h1>/debug/pprof/</h1>
        <ul>
        <li><a href="profile?seconds=5">profile</a>: who uses the CPUs, for <code>go tool pprof</code>;
        <a href="profile?seconds=5&amp;debug=1">with debug=1</a> as folded stacks. <code>seconds</code>: 30 if none
        are said</li>
        <li><a href="heap?debug=1">heap</a>: what the allocator tells of itself</li>
        <li><a href="threadcreate?debug=1">threadcreate</a>: the threads, and the CPU time that each has had</li>
        <li><a href="cmdline">cmdline</a>: the program's arguments</li>
        <li>symbol: names of functions by their addresses (0x...+0x...)</li>
        </ul>
        </body></html>

        """)

    private static func allocatorReport() -> String {
        guard let text = polder_allocator_report() else { return "the allocator tells nothing\n" }
        defer { free(text) }
        return String(cString: text)
    }

    private static func threadReport() -> String {
        var lines = ""
        let ticks = Double(sysconf(Int32(_SC_CLK_TCK)))
        guard let folder = opendir("/proc/self/task") else { return "no threads can be seen\n" }
        defer { closedir(folder) }
        var count = 0
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard let id = Int(name) else { continue }
            // The name stands in parentheses, and may hold anything.
            let line = Symbols.text(of: "/proc/self/task/\(id)/stat")
            guard let open = line.firstIndex(of: "("), let close = line.lastIndex(of: ")") else {
                continue
            }
            let fields = line[line.index(after: close)...].split(separator: " ")
            guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12])
            else { continue }
            count += 1
            lines += "\(id) \(line[line.index(after: open)..<close]) state \(fields[0]) "
                + "user \(user / ticks)s system \(system / ticks)s\n"
        }
        return "threadcreate profile: total \(count)\n" + lines
    }

    /// As Go answers: without addresses, that it can tell names.
    private static func names(of addresses: String) -> String {
        var out = "num_symbols: 1\n"
        var symbols = Symbols()
        for part in addresses.split(separator: "+").prefix(10_000) {
            let digits = part.hasPrefix("0x") ? part.dropFirst(2) : part
            guard let address = UInt(digits, radix: 16), let found = symbols.function(at: address) else {
                continue
            }
            out += "\(part) \(found.name)\n"
        }
        return out
    }

    /// A line for each stack, the outermost function first, and how often it was seen: what flame graphs are
    /// made of.
    private static func folded(_ samples: CPUProfile.Samples, _ symbols: inout Symbols) -> String {
        var lines: [String: Int] = [:]
        for (stack, count) in samples.stacks {
            let names = stack.reversed().map { address in
                symbols.function(at: address)?.name.replacing(";", with: ",")
                    ?? "0x" + String(address, radix: 16)
            }
            lines[names.joined(separator: ";"), default: 0] += count
        }
        let sorted = lines.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
        return sorted.map { "\($0.key) \($0.value)\n" }.joined()
    }
}

/// Carries the loop's responder to another thread and back; only the loop uses it.
private final class ResponderRelay: @unchecked Sendable {
    private let responder: HTTPResponder
    init(_ responder: HTTPResponder) { self.responder = responder }
    func respond(_ response: HTTPResponse) {
        if !responder.isClosed { responder.respond(response) }
    }
}
