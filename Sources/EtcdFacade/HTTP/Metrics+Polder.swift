import EtcdAPI
import Primitives

extension Facade {
    /// What etcd has no names for.
    func writePolder(_ status: NodeStatus, _ out: inout MetricsText) {
        out.gauge(
            "polder_frontier_revision",
            "The highest revision that is resolved with everything before it, as this node can serve it.",
            status.revision.rawValue)
        out.gauge(
            "polder_ready", "1 if this node can serve linearizable reads.", status.isReady ? 1 : 0)
        out.gauge(
            "polder_feature_level",
            "The features that the region uses: those which the builds of all its nodes know.",
            Int64(status.featureLevel))
        out.counter(
            "polder_void_revisions_total", "Revisions that were handed out and came to nothing.",
            status.voidRevisionsTotal)
        out.counter(
            "polder_store_background_errors_total",
            "Flushes and compactions of the store that failed, since the process began.",
            status.storeErrorsTotal)
        if let server {
            out.gauge(
                "polder_unread_answer_bytes", "Answers that clients have not read yet.",
                server.unread.count)
            out.gauge(
                "polder_half_sent_request_bytes", "Requests of which clients have sent a part.",
                server.halfSentBytes)
            out.family(
                "polder_clients_turned_away_total", "counter",
                "Connections and requests that were ended since they cost too much.")
            let counters = server.counters
            for (reason, count) in [
                ("slow_reader", counters.slowReadersDropped), ("half_sent", counters.halfSentDropped),
                ("resets", counters.resetFloods), ("refused", counters.callsRefused),
            ] {
                out.sample("polder_clients_turned_away_total", [("reason", reason)], "\(count)")
            }
        }
        out.partitions(
            status, "polder_partition_leader", "gauge",
            "The node that leads the partition; 0 if none is known."
        ) { "\($0.leader ?? .none)" }
        out.counter(
            "polder_watch_catch_up_steps_total", "Steps in which watchers were sent what they had missed.",
            watches.catchUpStepsTotal)
        out.gauge(
            "polder_partitions", "Partitions of the region, as far as this node knows.",
            status.partitions.count)
        out.counter(
            "polder_reads_elsewhere_total",
            "Questions to other nodes for what this one's replicas do not hold.",
            status.questionsElsewhereTotal)
        out.gauge(
            "polder_partition_map_version", "Grows by one with every split.", status.mapVersion)
        out.gauge(
            "polder_partition_split_pending", "1 while a split is under way.",
            status.pendingSplit == nil ? 0 : 1)
        out.counter(
            "polder_partition_splits_total", "Splits that this node has seen come about.",
            status.splitsTotal)
        out.partitions(
            status, "polder_partition_writes_total", "counter",
            "Entries of the partition's log that this node has applied and that wrote something."
        ) { "\($0.writesTotal)" }
        out.partitions(
            status, "polder_partition_applied_slot", "gauge",
            "The slot up to which this node has applied the partition's log."
        ) { "\($0.applied)" }
        out.family(
            "polder_geo_lag_seconds", "gauge",
            "How long ago the newest change of the origin that is missing here was made.")
        for link in status.geoLinks {
            guard let lag = link.lagSeconds else { continue }
            out.sample("polder_geo_lag_seconds", [("origin", link.origin)], "\(lag)")
        }
        out.family(
            "polder_geo_lag_revisions", "gauge", "Revisions of the origin that are missing here.")
        for link in status.geoLinks {
            guard let lag = link.lagRevisions else { continue }
            out.sample("polder_geo_lag_revisions", [("origin", link.origin)], "\(lag)")
        }
        out.family("polder_geo_connected", "gauge", "1 if the link from the origin is up.")
        for link in status.geoLinks {
            out.sample(
                "polder_geo_connected", [("origin", link.origin)], link.isConnected ? "1" : "0")
        }
        out.family(
            "polder_conflicts_total", "counter",
            "Conflicts between regions that were resolved here.")
        for count in status.conflicts {
            out.sample("polder_conflicts_total", [("policy", count.policy)], "\(count.total)")
        }
    }
}

extension MetricsText {
    /// A family with a sample for each partition.
    fileprivate mutating func partitions(
        _ status: NodeStatus, _ name: String, _ kind: String, _ help: String,
        _ value: (NodeStatus.Partition) -> String
    ) {
        family(name, kind, help)
        for partition in status.partitions {
            sample(name, [("partition", "\(partition.id)")], value(partition))
        }
    }
}
