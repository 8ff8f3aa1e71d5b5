import CLinux
import Glibc
import Synchronization

/// Who used the CPUs for a while. One at a time in a process, since the kernel has one timer for it.
/// Whoever has begun it uses it, on one thread at a time.
final class CPUProfile: @unchecked Sendable {
    static let hertz = 100
    private static let isTaken = Atomic<Bool>(false)
    /// Room for half an hour of all cores of a small machine; what does not fit is counted.
    private static let wordsMax = 4 << 20

    private let words: UnsafeMutableBufferPointer<UInt>
    private let began: UInt64

    private init(_ words: UnsafeMutableBufferPointer<UInt>) {
        self.words = words
        began = CPUProfile.wallNanoseconds()
    }

    deinit { words.deallocate() }

    /// Nil: another one runs.
    static func begin() -> CPUProfile? {
        guard !isTaken.exchange(true, ordering: .acquiringAndReleasing) else { return nil }
        let words = UnsafeMutableBufferPointer<UInt>.allocate(capacity: wordsMax)
        words.initialize(repeating: 0)
        guard polder_sampling_begin(Int32(hertz), words.baseAddress, UInt(wordsMax)) == 0 else {
            words.deallocate()
            isTaken.store(false, ordering: .releasing)
            return nil
        }
        return CPUProfile(words)
    }

    struct Samples: Sendable {
        /// How often each stack was seen, the innermost address first.
        var stacks: [[UInt]: Int] = [:]
        var lost = 0
        var beganAtNanoseconds: UInt64
        var nanoseconds: UInt64
    }

    func end() -> Samples {
        var lost: UInt = 0
        let used = Int(polder_sampling_end(&lost))
        var samples = Samples(
            lost: Int(lost), beganAtNanoseconds: began,
            nanoseconds: CPUProfile.wallNanoseconds() - began)
        var at = 0
        while at < used {
            let count = Int(words[at])
            guard count > 0, at + 1 + count <= used else { break }
            samples.stacks[Array(words[(at + 1)..<(at + 1 + count)]), default: 0] += 1
            at += 1 + count
        }
        CPUProfile.isTaken.store(false, ordering: .releasing)
        return samples
    }

    private static func wallNanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}
