import Node
import Partitioning
import Primitives

/// The partitions of a region, as whoever looks at all of its nodes knows them.
struct RegionMap {
    private(set) var map: PartitionMap
    /// Of each partition that a split has made.
    private var places: [PartitionID: PartitionState.Place] = [:]

    init(_ founding: PartitionMap) { map = founding }

    var count: Int { map.count }

    /// In whose log it was written: before a split it was the parent's.
    func partition(of key: Bytes, at revision: Revision) -> PartitionID {
        var found = map.partition(of: key)
        while let origin = places[found]?.origin, revision <= origin.revision {
            found = origin.split.parent
        }
        return found
    }

    /// False: another replica has split it in another way.
    mutating func place(_ partition: PartitionID, _ place: PartitionState.Place) -> Bool {
        guard let origin = place.origin else { return true }
        if let known = places[partition] { return known.origin == origin }
        places[partition] = place
        return map.apply(origin.split)
    }
}

extension World {
    static let splits: UInt64 = 1 << 59
    private static let partitionsMax = 12

    /// Of the region that has most.
    var partitionCount: Int { maps.values.map(\.count).max() ?? map.count }

    func split(in region: RegionID, _ luck: inout SplitMix) {
        let address = NodeAddress(
            region: region, node: NodeID(UInt16(1 + luck.below(UInt64(nodesPerRegion)))))
        let partition = PartitionID(UInt32(1 + luck.below(UInt64(partitionCount))))
        let range = maps[region]?.map.range(of: partition) ?? .all
        let cut = luck.chance(1, in: 2) ? nil : range.first + luck.next() % max(1, range.last - range.first)
        guard let node = nodes[address], node.isUp, (maps[region]?.count ?? 0) < Self.partitionsMax
        else { return }
        say("partition \(partition) of region \(region) is to be split at \(cut.map { "\($0)" } ?? "its middle")")
        deliver(
            .request(
                .split(partition, at: cut), token: Self.splits | luck.below(1 << 40),
                deadline: node.clock.reading(at: queue.now).instant.advanced(by: paced(5_000))),
            to: address)
    }

    func placed(_ group: GroupID, _ place: PartitionState.Place, at address: NodeAddress) {
        let before = maps[address.region]?.count ?? 0
        guard maps[address.region]?.place(group.partition, place) == true else {
            fail(Violation("agreement", "\(address) has cut \(group) off in another way: \(place)"))
            return
        }
        counts.splits += (maps[address.region]?.count ?? 0) - before
    }

    /// Every hash belongs to one of the leaders that the sequencer counts on.
    func checkServing(in region: RegionID) {
        guard (maps[region]?.count ?? 0) > map.count, let epoch = newestEpoch[region],
            let sequencer = nodes[NodeAddress(region: region, node: epoch.node.seat)]?.core,
            sequencer.sequencerEpoch == epoch
        else { return }
        var ranges: [(partition: PartitionID, range: HashRange)] = []
        for (i, term) in sequencer.servingTerms.enumerated() where term > .zero {
            let partition = PartitionID(UInt32(i + 1))
            let leader = nodes[NodeAddress(region: region, node: term.node.seat)]?.core
            if let range = leader?.range(of: partition, ledIn: term) { ranges.append((partition, range)) }
        }
        ranges.sort { $0.range.first < $1.range.first }
        for (a, b) in zip(ranges, ranges.dropFirst()) where a.range.last >= b.range.first {
            fail(
                Violation(
                    "one partition serves a key",
                    "\(region): \(a.partition) has \(a.range) and \(b.partition) has \(b.range)"))
        }
    }

    /// What was begun comes about, everywhere.
    func waitForSplits() {
        guard counts.splits > 0 else { return }
        wait(atMost: paced(10_000)) { [self] in openSplits.isEmpty }
        if violations.isEmpty, !openSplits.isEmpty {
            fail(Violation("a healthy region ends its splits", openSplits.joined(separator: "; ")))
        }
    }

    private var openSplits: [String] {
        addresses.compactMap { address in
            guard let core = nodes[address]?.core else { return "\(address) is down" }
            let count = maps[address.region]?.count ?? 0
            if core.pendingSplit == nil, core.holdsAllPartitions, core.map.count == count { return nil }
            return "\(address): \(core.map.count) of \(count) partitions, "
                + "\(core.lackedPartitions) not here, "
                + "\(core.pendingSplit.map { "\($0)" } ?? "none") under way"
        }
    }
}
