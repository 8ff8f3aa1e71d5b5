package import Primitives

extension TimeSpan {
    /// `250us`, `80ms`, `2s`, `5m`, `1h`; a bare `0` too.
    package init?(text: String) {
        if text == "0" {
            self = .zero
            return
        }
        let units: [(String, UInt64)] = [
            ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000),
            ("h", 3_600_000_000_000),
        ]
        for (unit, nanoseconds) in units where text.hasSuffix(unit) {
            guard let number = UInt64(text.dropLast(unit.count)) else { continue }
            let (product, overflow) = number.multipliedReportingOverflow(by: nanoseconds)
            guard !overflow else { return nil }
            self.init(nanoseconds: product)
            return
        }
        return nil
    }

    package var text: String {
        if nanoseconds % 1_000_000_000 == 0, nanoseconds > 0 { return "\(nanoseconds / 1_000_000_000)s" }
        if nanoseconds % 1_000_000 == 0 { return "\(nanoseconds / 1_000_000)ms" }
        return "\(nanoseconds / 1_000)us"
    }
}
