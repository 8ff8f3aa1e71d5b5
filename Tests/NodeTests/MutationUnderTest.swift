import Primitives

#if POLDER_MUTATIONS
    import Glibc
#endif

/// `make mutations` runs the tests of schedules once with each rule broken: they must fail.
enum MutationUnderTest {
    static func set() {
        #if POLDER_MUTATIONS
            if let name = getenv("POLDER_MUTATION") {
                Mutation.current = Mutation(rawValue: String(cString: name))
            }
        #endif
    }
}
