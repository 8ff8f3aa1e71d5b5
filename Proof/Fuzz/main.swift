import Foundation
import Glibc

// Fuzzing of everything that reads what others wrote: `make fuzz`, or
//
//     fuzz list
//     fuzz [--target NAME] [--seconds N] [--executions N] [--seed N] [--artifacts DIR]
//     fuzz --target NAME --input FILE

let targets =
    [
        FuzzTarget.http2, .grpc, .gzip, .messages, .codec, .http1, .gateway, .simpleTokens, .webTokens,
        .certificates, .config, .etcdConfig, .etcdFlags, .etcdMembers, .snapshotFile, .logSegment,
        .snapshotChunk, .peerFrames,
    ] + FuzzTarget.pure

var words = Array(CommandLine.arguments.dropFirst())
@MainActor func value(_ name: String) -> String? {
    guard let i = words.firstIndex(of: "--" + name), i + 1 < words.count else { return nil }
    defer { words.removeSubrange(i...i + 1) }
    return words[i + 1]
}
func fail(_ text: String) -> Never {
    FileHandle.standardError.write(Data((text + "\n").utf8))
    exit(2)
}

let only = value("target")
let input = value("input")
let seconds = value("seconds").map { Double($0) ?? 0 } ?? 5
let executions = value("executions").map { UInt64($0) ?? 0 } ?? .max
let seed = value("seed").map { UInt64($0) ?? 0 } ?? 1
let artifacts = value("artifacts") ?? FileManager.default.temporaryDirectory.path()
if words == ["list"] {
    for target in targets { print("\(target.name): \(target.what)") }
    exit(0)
}
guard words.isEmpty else { fail("what is \(words.joined(separator: " "))? Try: fuzz list") }
let chosen = targets.filter { only == nil || $0.name == only }
guard !chosen.isEmpty else { fail("there is no target \(only ?? ""): fuzz list") }

if let input {
    guard let target = chosen.first, only != nil, let data = FileManager.default.contents(atPath: input)
    else { fail("--input needs a readable file, and the --target that it is for") }
    do {
        try target.prepare().run(Array(data))
        print("taken")
    } catch {
        print(error is Finding ? "BROKEN: \(error)" : "refused: \(error)")
        Scratch.removeAll()
        exit(error is Finding ? 1 : 0)
    }
    Scratch.removeAll()
    exit(0)
}

var isGood = true
try? FileManager.default.createDirectory(atPath: artifacts, withIntermediateDirectories: true)
for target in chosen {
    Guard.install(path: "\(artifacts)/\(target.name)-last", deadlineSeconds: 20)
    var fuzzer = Fuzzer(target, seed: seed, artifacts: artifacts)
    do {
        let report = try fuzzer.run(seconds: seconds, executions: executions)
        print(
            String(
                format: "%@: %llu inputs in %.0f s of CPU (%llu taken, %d kinds of answers, slowest %.1f ms), "
                    + "%d MiB at most, %d findings", target.name, report.executions, report.cpuSeconds,
                report.taken, report.answers, report.slowestMilliseconds, report.peakBytes >> 20,
                report.findings.count))
        fflush(nil)
        for finding in report.findings {
            print("  BROKEN: \(finding.prefix(2000))")
            isGood = false
        }
    } catch {
        print("\(target.name): could not run: \(error)")
        isGood = false
    }
}
Scratch.removeAll()
exit(isGood ? 0 : 1)
