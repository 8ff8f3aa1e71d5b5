import Glibc
import Primitives

/// What a sample proves. Exact binomial bounds (Clopper and Pearson, Biometrika 26, 1934): they
/// hold for every sample size, also where nothing failed, which is where an approximation says "100
/// %".
package enum Confidence {
    /// One-sided upper bound of the failure probability: with probability `confidence` the truth is
    /// below.
    package static func failureUpperBound(
        failures: UInt64, probes: UInt64, confidence: Double = 0.95
    ) -> Double {
        invariant(failures <= probes && confidence > 0 && confidence < 1)
        guard failures < probes else { return 1 }
        return inverseIncompleteBeta(
            confidence, Double(failures) + 1, Double(probes - failures))
    }

    /// One-sided lower bound of the availability. No probes prove nothing: 0.
    package static func availabilityLowerBound(
        failures: UInt64, probes: UInt64, confidence: Double = 0.95
    ) -> Double {
        1 - failureUpperBound(failures: failures, probes: probes, confidence: confidence)
    }

    /// How many faultless probes it takes to prove `availability`.
    package static func probesNeeded(for availability: Double, confidence: Double = 0.95) -> UInt64
    {
        invariant(availability > 0 && availability < 1)
        return UInt64((log(1 - confidence) / log(availability)).rounded(.up))
    }

    /// I_x(a, b), the regularised incomplete beta function: continued fraction by Lentz's method
    /// (Press et al., Numerical Recipes 6.4), on the side where it converges fast.
    package static func incompleteBeta(_ x: Double, _ a: Double, _ b: Double) -> Double {
        if x <= 0 { return 0 }
        if x >= 1 { return 1 }
        let logFront =
            logGamma(a + b) - logGamma(a) - logGamma(b) + a * log(x) + b * log1p(-x)
        return x < (a + 1) / (a + b + 2)
            ? exp(logFront) * continuedFraction(x, a, b) / a
            : 1 - exp(logFront) * continuedFraction(1 - x, b, a) / b
    }

    /// The x with I_x(a, b) = p. Bisection on log x: failure rates of interest are far below 1, and
    /// 200 halvings of the exponent's range are exact to the last bit, whatever the shape.
    package static func inverseIncompleteBeta(_ p: Double, _ a: Double, _ b: Double) -> Double {
        var low = -700.0, high = 0.0
        for _ in 0..<200 {
            let middle = (low + high) / 2
            if middle == low || middle == high { break }
            if incompleteBeta(exp(middle), a, b) < p { low = middle } else { high = middle }
        }
        return exp((low + high) / 2)
    }

    private static func continuedFraction(_ x: Double, _ a: Double, _ b: Double) -> Double {
        let tiny = 1e-300
        func nonZero(_ v: Double) -> Double { abs(v) < tiny ? tiny : v }
        var c = 1.0
        var d = 1 / nonZero(1 - (a + b) * x / (a + 1))
        var h = d
        for m in 1...10_000 {
            let m = Double(m)
            let even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
            d = 1 / nonZero(1 + even * d)
            c = nonZero(1 + even / c)
            h *= d * c
            let odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
            d = 1 / nonZero(1 + odd * d)
            c = nonZero(1 + odd / c)
            let factor = d * c
            h *= factor
            if abs(factor - 1) < 1e-15 { break }
        }
        return h
    }

    private static func logGamma(_ x: Double) -> Double {
        var sign: Int32 = 0
        return lgamma_r(x, &sign)
    }
}
