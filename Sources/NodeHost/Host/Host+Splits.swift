import EtcdFacade
import Logging
import Node
import Partitioning
import Primitives
import Storage

/// Partitions that are split because they have become large or busy, if the configuration says so. The
/// sequencer's node decides; everything else is as if an operator had asked.
extension Host {
    /// Once a second.
    func lookForSplits() {
        let rule = configuration.splits
        let writes = node.partitionWrites
        let busy = splitWatch.look(writes, at: Clocks.instant(), every: rule.period)
        guard rule.isOn, let rates = busy, !isSplitAsked, node.mayTellOfSplits,
            node.pendingSplit == nil,
            node.sequencerNode(at: Clocks.instant()) == identity.node
        else { return }
        let stored = figures.sizes?.total ?? 0
        guard let partition = rule.choice(node.map, writesPerSecond: rates, storeBytes: stored)
        else { return }
        isSplitAsked = true
        logger.notice(
            "a partition is to be split",
            metadata: [
                "partition": "\(partition)",
                "writesPerSecond": "\(rates[Int(partition.rawValue) - 1])",
                "storeBytes": "\(stored)",
            ])
        facade?.submit(.split(partition, at: nil)) { [weak self] response in
            self?.isSplitAsked = false
            if case .failed(let error) = response {
                self?.logger.warning(
                    "a partition was not split",
                    metadata: ["partition": "\(partition)", "reason": "\(error)"])
            }
        }
    }
}

/// How busy the partitions are: writes a second, over a while.
struct SplitWatch {
    private var writes: [UInt64] = []
    private var since = Instant.zero

    /// Nil: the while is not over yet. Partitions that are new in it count from the next on.
    mutating func look(_ now: [UInt64], at instant: Instant, every period: TimeSpan) -> [UInt64]? {
        guard since > .zero else {
            since = instant
            writes = now
            return nil
        }
        let span = instant.since(since)
        guard span >= period else { return nil }
        let seconds = max(1, span.nanoseconds / 1_000_000_000)
        let rates = now.indices.map { i in
            i < writes.count && now[i] >= writes[i] ? (now[i] - writes[i]) / seconds : 0
        }
        since = instant
        writes = now
        return rates
    }
}

extension HostConfiguration.Splits {
    /// The busiest that is too busy, else the widest that holds too much. Keys are spread over the hashes
    /// evenly, so that a partition's share of them is its share of the store.
    func choice(
        _ map: PartitionMap, writesPerSecond rates: [UInt64], storeBytes: UInt64
    ) -> PartitionID? {
        guard map.count < partitionsMax else { return nil }
        if writesPerSecond > 0, let most = rates.indices.max(by: { rates[$0] < rates[$1] }),
            rates[most] > UInt64(writesPerSecond), most < map.count
        {
            return PartitionID(UInt32(most + 1))
        }
        func width(_ range: HashRange) -> Double { Double(range.last - range.first) / 0x1p64 }
        guard bytes > 0, let widest = map.entries.max(by: { width($0.range) < width($1.range) }),
            Double(storeBytes) * width(widest.range) > Double(bytes)
        else { return nil }
        return widest.partition
    }
}
