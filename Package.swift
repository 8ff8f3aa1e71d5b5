// swift-tools-version: 6.2
import Foundation
import PackageDescription

// The arrows of docs/architecture.md are the dependencies below: a pure module cannot import what is
// not listed for it, and Tests/TidyTests checks what the build cannot (no clock, luck or I/O).

let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    // Our modules call one another all the time, also generic functions, which without the first look their
    // types up at run time; debug builds check exclusive access as ever (docs/performance.md).
    .unsafeFlags(["-cross-module-optimization", "-enforce-exclusivity=unchecked"], .when(configuration: .release)),
]

func library(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, exclude: ["README.md"], swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = []) -> Target {
    .testTarget(
        name: name, dependencies: dependencies, resources: resources, swiftSettings: settings)
}

let deque: Target.Dependency = .product(name: "DequeModule", package: "swift-collections")
let nioCore: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")
let nioHTTP1: Target.Dependency = .product(name: "NIOHTTP1", package: "swift-nio")
let nioWebSocket: Target.Dependency = .product(name: "NIOWebSocket", package: "swift-nio")
let nioEmbedded: Target.Dependency = .product(name: "NIOEmbedded", package: "swift-nio")
let protobuf: Target.Dependency = .product(name: "SwiftProtobuf", package: "swift-protobuf")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let arguments: Target.Dependency = .product(
    name: "ArgumentParser", package: "swift-argument-parser")
let histogram: Target.Dependency = .product(name: "Histogram", package: "hdrhistogram-swift")
let yams: Target.Dependency = .product(name: "Yams", package: "Yams")

/// jemalloc, where its library is installed (`make deps` does): 10 % less CPU per request than glibc's
/// allocator, and a smaller process (docs/performance.md).
let allocator: [LinkerSetting] =
    ["x86_64-linux-gnu", "aarch64-linux-gnu", "."].contains {
        FileManager.default.fileExists(atPath: "/usr/lib/\($0)/libjemalloc.so")
    } ? [.linkedLibrary("jemalloc")] : []

let package = Package(
    name: "polder",
    products: [
        .executable(name: "polder", targets: ["polder"]),
        .executable(name: "polder-micro", targets: ["polder-micro"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.0"),
    ],
    targets: [
        .systemLibrary(name: "CNghttp2", pkgConfig: "libnghttp2", providers: [.apt(["libnghttp2-dev"])]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CLZ4", pkgConfig: "liblz4", providers: [.apt(["liblz4-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        // libcrypt: bcrypt, for the users' passwords.
        .target(name: "CLinux", linkerSettings: [.linkedLibrary("crypt")]),
        .systemLibrary(name: "CRocksDB", providers: [.apt(["librocksdb-dev"])]),

        // Pure: no clock, no randomness of their own, no I/O, no tasks, no Foundation.
        library("Primitives", [deque]),
        library("Consensus", ["Primitives", deque]),
        library("Partitioning", ["Primitives", deque]),
        library("GeoReplication", ["Primitives", deque]),
        library("Node", ["Primitives", "Consensus", "Partitioning", "GeoReplication", deque]),

        // The shell.
        library("BoltFile", ["Primitives"]),
        library("EtcdSnapshot", ["Primitives", "BoltFile"]),
        library("Storage", ["Primitives", "CRocksDB", "CLZ4"]),
        library("TLS", ["COpenSSL", nioCore]),
        library("Transport", ["Primitives", "TLS", "CLZ4", nioCore, nioPosix, logging]),
        library(
            "EtcdAPI",
            [
                "Primitives", "TLS", "CNghttp2", "CZlib", nioCore, nioPosix, nioHTTP1, nioWebSocket, protobuf,
            ]),
        library("EtcdFacade", ["Primitives", "EtcdAPI", nioCore, nioHTTP1, protobuf, logging]),
        library(
            "NodeHost",
            [
                "Primitives", "Consensus", "Partitioning", "GeoReplication", "Node", "Storage", "TLS",
                "Transport", "EtcdAPI", "EtcdFacade", "EtcdSnapshot", "BoltFile", "CLinux", nioCore,
                nioPosix, nioHTTP1, logging, yams,
            ]),
        library("Mirror", ["Primitives", "EtcdAPI", protobuf]),
        library("SLAProbe", ["Primitives", "EtcdAPI", "TLS", nioCore, nioPosix, histogram]),
        library(
            "Simulator",
            ["Primitives", "Consensus", "Partitioning", "GeoReplication", "Node", "Storage", deque]),
        .executableTarget(
            name: "polder",
            dependencies: [
                "NodeHost", "SLAProbe", "Simulator", "Primitives", "TLS", "EtcdAPI", "EtcdSnapshot", "Mirror",
                arguments, logging, nioCore, nioPosix, protobuf, yams,
            ],
            exclude: ["README.md"], swiftSettings: settings,
            linkerSettings: allocator),

        // Costs of single rooms, and their budgets. Takes the place of malloc: never part of `polder`.
        .target(name: "CAllocations"),
        library(
            "MicroBenchmarks",
            [
                "Primitives", "Consensus", "Partitioning", "GeoReplication", "Node", "Storage", "EtcdAPI",
                "EtcdFacade", "CAllocations", nioCore, nioEmbedded,
            ]),
        .executableTarget(
            name: "polder-micro", dependencies: ["MicroBenchmarks"], exclude: ["README.md"],
            swiftSettings: settings),
        tests("BudgetTests", ["MicroBenchmarks"]),

        // Everything that reads what others wrote, given damaged input: `make fuzz`.
        .executableTarget(
            name: "fuzz",
            dependencies: [
                "Primitives", "Simulator", "Storage", "BoltFile", "EtcdSnapshot", "TLS", "Transport",
                "EtcdAPI", "EtcdFacade", "Node", "NodeHost", nioCore, nioEmbedded, protobuf,
            ],
            path: "Proof/Fuzz", exclude: ["README.md"], swiftSettings: settings),

        tests("PrimitivesTests", ["Primitives"]),
        tests(
            "EtcdAPITests",
            ["EtcdAPI", "Primitives", "TLS", nioCore, nioPosix, nioEmbedded, protobuf]),
        tests("GeoReplicationTests", ["GeoReplication", "Primitives"]),
        tests("PartitioningTests", ["Partitioning", "Primitives"]),
        tests("NodeTests", ["Node", "Partitioning", "Primitives"]),
        tests("SimulationTests", ["Simulator", "Primitives"]),
        tests("ConsensusTests", ["Primitives", "Consensus"]),
        tests(
            "EtcdFacadeTests",
            ["EtcdFacade", "EtcdAPI", "Primitives", nioCore, nioEmbedded, protobuf]),
        tests("TLSTests", ["TLS", "COpenSSL", nioCore, nioPosix, nioEmbedded]),
        tests("TransportTests", ["Primitives", "TLS", "Transport", nioCore, nioPosix]),
        tests("BoltFileTests", ["BoltFile", "Primitives"]),
        tests(
            "EtcdSnapshotTests", ["EtcdSnapshot", "BoltFile", "Primitives"], resources: [.copy("Golden")]),
        tests("StorageTests", ["Primitives", "Storage"], resources: [.copy("Golden")]),
        tests("SLAProbeTests", ["SLAProbe", "EtcdAPI", "TLS", "Primitives", nioCore, nioPosix]),
        tests(
            "NodeHostTests",
            [
                "NodeHost", "Primitives", "BoltFile", "EtcdFacade", "EtcdSnapshot", "Node", "Partitioning",
                "Storage", "TLS", nioCore, nioPosix,
            ]),
        tests("MirrorTests", ["Mirror", "EtcdAPI"]),
        tests("TidyTests", []),
    ]
)
