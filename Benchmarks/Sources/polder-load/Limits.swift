import CLoad

/// `polder-load limits DIR`: what no server can be faster than, on this machine and this disk.
enum Limits {
    static func main(_ arguments: [String]) -> Int32 {
        var directory: String?
        var rounds = 1000
        var rest = arguments[...]
        while let word = rest.popFirst() {
            if word == "--rounds", let value = rest.popFirst(), let number = Int(value), number > 0 {
                rounds = min(number, 1_000_000)
            } else {
                directory = word
            }
        }
        guard let directory else {
            print("polder-load limits DIR [--rounds N]")
            return 2
        }
        var times = [UInt64](repeating: 0, count: rounds)
        var fields: [String] = []
        for bytes in [512, 4096, 65_536] {
            guard load_sync_times(directory + "/polder-load-limits", Int32(bytes), &times, Int32(rounds)) == 0
            else {
                print("polder-load: cannot write and sync in \(directory)")
                return 2
            }
            fields.append("\"sync\(bytes)\": \(spread(times))")
        }
        // Where the kernel puts the two threads decides more than anything else: so it does not choose.
        for (name, apart) in [("roundTrip", Int32(0)), ("roundTripApart", 1)] {
            var cpu: UInt64 = 0
            guard load_round_trip_times(apart, &times, Int32(rounds), &cpu) == 0 else {
                print("polder-load: no connection over loopback")
                return 2
            }
            fields.append("\"\(name)\": \(spread(times))")
            fields.append("\"\(name)CPU\": \((Double(cpu) / Double(rounds)).rounded() / 1000)")
        }
        for (bytes, count) in [(256, 1_000_000), (4096, 200_000), (1 << 20, 2000)] {
            let nanos = Double(load_copy_time(bytes, Int32(count))) / Double(count)
            fields.append("\"copy\(bytes)\": \((nanos).rounded() / 1000)")
        }
        print("{\(fields.joined(separator: ", "))}")
        return 0
    }

    /// Microseconds: the median, and between which values 98 of 100 are.
    private static func spread(_ times: [UInt64]) -> String {
        let sorted = times.sorted()
        let pick = { (share: Int) in Double(sorted[(sorted.count - 1) * share / 100]) / 1000 }
        return "[\(pick(50)), \(pick(1)), \(pick(99))]"
    }
}
