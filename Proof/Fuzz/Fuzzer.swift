import Glibc
import Primitives

/// A parser that was wrong about an input: not a refusal, which is what most inputs deserve.
struct Finding: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// One parser, and inputs that it likes.
struct FuzzTarget {
    let name: String
    /// What is handed to it, in a few words.
    let what: String
    var grammar = Grammar.bytes
    /// Longer inputs are cut.
    var bytesMax = 64 << 10
    /// Puts checksums and the like right, so that an input gets past them.
    var repair: (([UInt8]) -> [UInt8])?
    /// Made once, when the target runs: the state that the parser needs, and the inputs.
    let prepare: () throws -> Prepared

    struct Prepared {
        /// Each is taken.
        let samples: [[UInt8]]
        /// Inputs worth damaging that need not be taken.
        var others: [[UInt8]] = []
        /// Throws `Finding` if the parser was wrong; any other error is a refusal.
        let run: ([UInt8]) throws -> Void
    }
}

/// Runs one target: damages inputs, watches time and memory, and keeps the inputs that were answered
/// as none before, to damage those further.
struct Fuzzer {
    struct Report {
        var executions: UInt64 = 0
        var taken: UInt64 = 0
        var cpuSeconds = 0.0
        var answers = 0
        var corpus = 0
        var peakBytes = 0
        var slowestMilliseconds = 0.0
        var findings: [String] = []
    }

    /// Of one input; each costs microseconds.
    private static let cpuMax: UInt64 = 2_000_000_000
    private static let growthMax = 256 << 20
    private static let corpusMax = 4000
    private static let answersMax = 20_000

    let target: FuzzTarget
    let artifacts: String
    private var random: SplitMix
    private var mutator: Mutator
    private var known: Set<Int> = []

    init(_ target: FuzzTarget, seed: UInt64, artifacts: String) {
        self.target = target
        self.artifacts = artifacts
        random = SplitMix(seed: seed)
        mutator = Mutator(grammar: target.grammar, seed: seed &+ 1)
    }

    /// Ends after `seconds` of CPU, or after `executions`.
    mutating func run(seconds: Double, executions: UInt64) throws -> Report {
        var report = Report()
        let prepared = try target.prepare()
        var corpus = prepared.samples
        corpus += prepared.others
        guard !corpus.isEmpty else { throw Finding("no samples") }
        for sample in prepared.samples {
            do {
                try prepared.run(sample)
            } catch let finding as Finding {
                note(finding.description, sample, &report)
            } catch {
                report.findings.append("a sample is refused: \(error)")
            }
        }
        let first = Guard.cpuNanoseconds()
        let limit = first &+ UInt64(seconds * 1e9)
        var now = first
        var peak = Guard.peakBytes()
        var settled = 0
        while now < limit, report.executions < executions, report.findings.count < 10 {
            let input = next(corpus)
            Guard.begin(input)
            report.executions += 1
            do {
                try prepared.run(input)
                report.taken += 1
                learn("taken", input, &corpus)
            } catch let finding as Finding {
                note(finding.description, input, &report)
            } catch {
                learn("\(error)", input, &corpus)
            }
            let after = Guard.cpuNanoseconds(), most = Guard.peakBytes()
            if after &- now > Self.cpuMax {
                note("\(Double(after &- now) / 1e9) s of CPU for one input", input, &report)
            }
            if most - peak > Self.growthMax {
                note("\((most - peak) >> 20) MiB for one input", input, &report)
            }
            report.slowestMilliseconds = max(report.slowestMilliseconds, Double(after &- now) / 1e6)
            (now, peak) = (after, most)
            // After a while a parser has all that it needs; what it takes from then on it keeps.
            if report.executions == 20_000 { settled = Guard.residentBytes() }
        }
        let resident = Guard.residentBytes()
        if settled > 0, resident - settled > 2 * Self.growthMax {
            report.findings.append("grew from \(settled >> 20) to \(resident >> 20) MiB")
        }
        report.cpuSeconds = Double(now &- first) / 1e9
        report.answers = known.count
        report.corpus = corpus.count
        report.peakBytes = peak
        return report
    }

    private mutating func next(_ corpus: [[UInt8]]) -> [UInt8] {
        var input = mutator.damaged(corpus, bytesMax: target.bytesMax)
        if let repair = target.repair, random.chance(7, in: 8) { input = repair(input) }
        if input.count > target.bytesMax { input.removeSubrange(target.bytesMax...) }
        return input
    }

    /// An answer never heard before is worth following.
    private mutating func learn(_ answer: String, _ input: [UInt8], _ corpus: inout [[UInt8]]) {
        guard known.count < Self.answersMax else { return }
        // Numbers and quoted parts differ from input to input and say nothing new.
        var hash = Hasher()
        for byte in answer.utf8.prefix(200) where !(0x30...0x39).contains(byte) && byte < 0x80 {
            hash.combine(byte)
        }
        // How large a taken input is, roughly: structure that grows is structure too.
        if answer == "taken" { hash.combine(input.count.bitWidth - (input.count | 1).leadingZeroBitCount) }
        guard known.insert(hash.finalize()).inserted, corpus.count < Self.corpusMax else { return }
        corpus.append(input)
    }

    private func note(_ what: String, _ input: [UInt8], _ report: inout Report) {
        let path = "\(artifacts)/\(target.name)-\(report.findings.count)"
        report.findings.append("\(what) (\(path))")
        guard let file = fopen(path, "w") else { return }
        fwrite(input, 1, input.count, file)
        fclose(file)
    }
}
