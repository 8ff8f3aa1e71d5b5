// swift-tools-version: 6.2
import PackageDescription

// The load generator of `make bench`. A package of its own, without NIO and protobuf: it builds in a
// minute, and what it costs itself is not what a server costs (README.md).

let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
    name: "polder-benchmarks",
    products: [.executable(name: "polder-load", targets: ["polder-load"])],
    dependencies: [
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0")
    ],
    targets: [
        .systemLibrary(name: "CNghttp2", pkgConfig: "libnghttp2", providers: [.apt(["libnghttp2-dev"])]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
        .target(name: "CLoad"),
        .executableTarget(
            name: "polder-load",
            dependencies: [
                "CNghttp2", "COpenSSL", "CLoad",
                .product(name: "Histogram", package: "hdrhistogram-swift"),
            ],
            swiftSettings: settings),
        .testTarget(name: "LoadTests", dependencies: ["polder-load", "CLoad"], swiftSettings: settings),
    ]
)
