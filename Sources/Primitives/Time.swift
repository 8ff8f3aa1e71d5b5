/// A point on the boot-time clock (CLOCK_BOOTTIME: it goes on while a machine is suspended,
/// protocol-rules.md S13), supplied by the host, never read in a pure module. Nanoseconds.
public struct Instant: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let nanoseconds: UInt64
    @inlinable public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }
    public static let zero = Instant(nanoseconds: 0)
    public static let never = Instant(nanoseconds: .max)

    @inlinable public static func < (a: Self, b: Self) -> Bool { a.nanoseconds < b.nanoseconds }

    @inlinable public func advanced(by span: TimeSpan) -> Instant {
        let (sum, overflow) = nanoseconds.addingReportingOverflow(span.nanoseconds)
        return overflow ? .never : Instant(nanoseconds: sum)
    }

    /// Time since `earlier`; zero if it is not earlier.
    @inlinable public func since(_ earlier: Instant) -> TimeSpan {
        TimeSpan(nanoseconds: nanoseconds > earlier.nanoseconds ? nanoseconds - earlier.nanoseconds : 0)
    }
    public var description: String { "\(nanoseconds / 1_000_000)ms" }
}

/// A length of time, never negative. Nanoseconds.
public struct TimeSpan: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let nanoseconds: UInt64
    @inlinable public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }
    public static let zero = TimeSpan(nanoseconds: 0)
    public static func microseconds(_ n: UInt64) -> TimeSpan { .init(nanoseconds: n * 1_000) }
    public static func milliseconds(_ n: UInt64) -> TimeSpan { .init(nanoseconds: n * 1_000_000) }
    public static func seconds(_ n: UInt64) -> TimeSpan {
        let (product, overflow) = n.multipliedReportingOverflow(by: 1_000_000_000)
        return .init(nanoseconds: overflow ? .max : product)
    }
    @inlinable public static func < (a: Self, b: Self) -> Bool { a.nanoseconds < b.nanoseconds }
    public static func + (a: Self, b: Self) -> Self { .init(nanoseconds: a.nanoseconds &+ b.nanoseconds) }
    public static func * (a: Self, n: UInt64) -> Self { .init(nanoseconds: a.nanoseconds * n) }
    public static func / (a: Self, n: UInt64) -> Self { .init(nanoseconds: a.nanoseconds / n) }
    public var milliseconds: UInt64 { nanoseconds / 1_000_000 }
    public var description: String { "\(nanoseconds / 1_000)us" }
}

/// What the host's clocks said after the last input of a batch was taken from its queue
/// (protocol-rules.md S13 b).
public struct ClockReading: Hashable, Sendable {
    public let instant: Instant
    /// Wall clock, microseconds since 1970. Only the hybrid clock looks at it.
    public let wallMicroseconds: UInt64
    public init(instant: Instant, wallMicroseconds: UInt64) {
        self.instant = instant
        self.wallMicroseconds = wallMicroseconds
    }
}

/// Hybrid logical clock value and the region that gave it: one per transaction (protocol-rules.md G2).
/// `ticks` is microseconds since 1970, pushed up by one where the clock stood still.
public struct Stamp: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let ticks: UInt64
    public let region: RegionID
    @inlinable public init(ticks: UInt64, region: RegionID) {
        self.ticks = ticks
        self.region = region
    }
    public static let zero = Stamp(ticks: 0, region: RegionID(rawValue: 0))
    @inlinable public static func < (a: Self, b: Self) -> Bool {
        a.ticks != b.ticks ? a.ticks < b.ticks : a.region < b.region
    }
    public var description: String { "\(ticks)@\(region)" }
}
