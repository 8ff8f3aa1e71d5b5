// swift-tools-version: 6.2
import PackageDescription

// The pure modules and the simulator alone: builds in a minute, where the shell takes many. `make
// mutations` uses it; POLDER_MUTATIONS=1 puts the broken rules in (Primitives/Mutation).

let mutations: [SwiftSetting] =
    Context.environment["POLDER_MUTATIONS"] == nil ? [] : [.define("POLDER_MUTATIONS")]
let settings: [SwiftSetting] = mutations + [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

func library(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, exclude: ["README.md"], swiftSettings: settings)
}

let deque: Target.Dependency = .product(name: "DequeModule", package: "swift-collections")
let pure: [Target.Dependency] = [
    "Primitives", "Consensus", "Partitioning", "GeoReplication", "Node",
]

let package = Package(
    name: "proof",
    dependencies: [.package(url: "https://github.com/apple/swift-collections", from: "1.6.0")],
    targets: [
        library("Primitives", [deque]),
        library("Consensus", ["Primitives", deque]),
        library("Partitioning", ["Primitives", deque]),
        library("GeoReplication", ["Primitives", deque]),
        library("Node", ["Primitives", "Consensus", "Partitioning", "GeoReplication", deque]),
        library("Simulator", pure + [deque]),
        .executableTarget(
            name: "proof", dependencies: pure + ["Simulator"], swiftSettings: settings),
        .testTarget(
            name: "PartitioningTests", dependencies: ["Partitioning", "Primitives"],
            swiftSettings: settings),
        .testTarget(
            name: "ConsensusTests", dependencies: ["Consensus", "Primitives"], swiftSettings: settings),
        .testTarget(
            name: "GeoReplicationTests", dependencies: ["GeoReplication", "Primitives"],
            swiftSettings: settings),
        .testTarget(
            name: "NodeTests", dependencies: ["Node", "Partitioning", "Consensus", "Primitives"],
            swiftSettings: settings),
        .testTarget(
            name: "SimulationTests", dependencies: ["Simulator", "Primitives"], swiftSettings: settings),
    ]
)
