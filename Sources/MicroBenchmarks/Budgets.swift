/// Allocations of one unit, at most. In debug builds nothing is specialized or inlined, so it makes more
/// of them; both are promises of the steady state, with a twentieth to spare for what grows by doubling.
package struct Budget: Sendable {
    package let debug: Double
    package let release: Double

    package var current: Double {
        #if DEBUG
            debug
        #else
            release
        #endif
    }
}

extension Budget {
    /// Five are the embedded loop's own, which is asked once a request to write at the end of its tick.
    static let doorPut = Budget(debug: 48, release: 15.5)
    static let doorGet = Budget(debug: 49, release: 15.5)
    static let fanOut = Budget(debug: 4.1, release: 0.8)
    static let corePut = Budget(debug: 440, release: 18)
    static let coreBatch = Budget(debug: 216, release: 6.2)
    static let evaluation = Budget(debug: 12.5, release: 7.3)
    static let paxos = Budget(debug: 58, release: 1.1)
    static let overlay = Budget(debug: 4.4, release: 0.05)
    static let timeline = Budget(debug: 5.4, release: 2.2)
    static let geo = Budget(debug: 10.8, release: 2.3)
    static let log = Budget(debug: 17, release: 6.5)
    /// Without optimization each comparison of the sort that puts the changes in order allocates.
    static let apply = Budget(debug: 52, release: 1.3)
    static let storedRow = Budget(debug: 0.05, release: 0.05)
    static let storedRange = Budget(debug: 3.3, release: 0.1)
}
