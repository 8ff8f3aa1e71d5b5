import EtcdAPI
import Primitives

extension Facade {
    func writeNetwork(_ status: NodeStatus, _ out: inout MetricsText) {
        if let counters = server?.counters {
            out.counter(
                "etcd_network_client_grpc_received_bytes_total",
                "The total number of bytes received from grpc clients.",
                counters.messageBytesReceived)
            out.counter(
                "etcd_network_client_grpc_sent_bytes_total",
                "The total number of bytes sent to grpc clients.", counters.messageBytesSent)
        }
        let local = String(status.memberID, radix: 16)
        let peers = status.peers.map { ($0, String($0.id, radix: 16)) }
        /// One sample for each peer; nil: none for this one.
        func each(
            _ name: String, _ kind: String, _ help: String,
            _ labels: (String) -> [(String, String)], _ value: (NodeStatus.PeerTraffic) -> UInt64?
        ) {
            out.family("etcd_network_\(name)", kind, help)
            for (peer, id) in peers {
                guard let value = value(peer) else { continue }
                out.sample("etcd_network_\(name)", labels(id), "\(value)")
            }
        }
        func histogram(
            _ name: String, _ help: String, _ label: String,
            _ value: (NodeStatus.PeerTraffic) -> DurationCounts
        ) {
            out.family("etcd_network_\(name)", "histogram", help)
            for (peer, id) in peers {
                value(peer).write("etcd_network_\(name)", [(label, id)], &out)
            }
        }
        func both(_ id: String) -> [(String, String)] { [("Local", local), ("Remote", id)] }
        func to(_ id: String) -> [(String, String)] { [("To", id)] }
        func from(_ id: String) -> [(String, String)] { [("From", id)] }

        each("active_peers", "gauge", "The current number of active peer connections.", both) {
            $0.isConnected ? 1 : nil
        }
        each("known_peers", "gauge", "The current number of known peers.", both) { _ in 1 }
        each(
            "disconnected_peers_total", "counter", "The total number of disconnected peers.", both
        ) { $0.disconnects }
        each(
            "peer_sent_bytes_total", "counter", "The total number of bytes sent to peers.", to
        ) { $0.bytesSent }
        each(
            "peer_received_bytes_total", "counter", "The total number of bytes received from peers.",
            from
        ) { $0.bytesReceived }
        each(
            "peer_sent_failures_total", "counter", "The total number of send failures from peers.",
            to
        ) { $0.sendFailures }
        each(
            "peer_received_failures_total", "counter",
            "The total number of receive failures from peers.", from
        ) { $0.receiveFailures }
        histogram(
            "peer_round_trip_time_seconds", "Round-Trip-Time histogram between peers", "To"
        ) { $0.roundTrips }
        each(
            "snapshot_send_success", "counter", "Total number of successful snapshot sends", to
        ) { $0.snapshotsSent.durations.count }
        each(
            "snapshot_send_failures", "counter", "Total number of snapshot send failures", to
        ) { $0.snapshotsSent.failures }
        each(
            "snapshot_send_inflights_total", "gauge", "Total number of inflight snapshot sends", to
        ) { UInt64($0.snapshotsSent.underWay) }
        histogram(
            "snapshot_send_total_duration_seconds",
            "Total latency distributions of v3 snapshot sends", "To"
        ) { $0.snapshotsSent.durations }
        each(
            "snapshot_receive_success", "counter", "Total number of successful snapshot receives",
            from
        ) { $0.snapshotsReceived.durations.count }
        each(
            "snapshot_receive_failures", "counter", "Total number of snapshot receive failures",
            from
        ) { $0.snapshotsReceived.failures }
        each(
            "snapshot_receive_inflights_total", "gauge",
            "Total number of inflight snapshot receives", from
        ) { UInt64($0.snapshotsReceived.underWay) }
        histogram(
            "snapshot_receive_total_duration_seconds",
            "Total latency distributions of v3 snapshot receives", "From"
        ) { $0.snapshotsReceived.durations }
    }

    /// What etcd's disk, snapshot and compaction families mean here: the log, the store's batches, its
    /// flushes (after which the log is cut, as etcd's is after a snapshot), its compactions.
    func writeDisk(_ status: NodeStatus, _ out: inout MetricsText) {
        status.logSyncs.write(
            "etcd_disk_wal_fsync_duration_seconds",
            "The latency distributions of fsync called by WAL.", &out)
        out.gauge(
            "etcd_disk_wal_write_bytes_total", "Total number of bytes written in WAL.",
            status.logBytesTotal)
        status.storeCommits.write(
            "etcd_disk_backend_commit_duration_seconds",
            "The latency distributions of commit called by backend.", &out)
        status.reclaiming.whole.write(
            "etcd_disk_backend_defrag_duration_seconds",
            "The latency distribution of backend defragmentation.", &out)
        out.gauge(
            "etcd_disk_defrag_inflight",
            "Whether or not defrag is active on the member. 1 means active, 0 means not.",
            status.reclaiming.isUnderWay ? 1 : 0)
        status.flushes.whole.write(
            "etcd_debugging_snap_save_total_duration_seconds",
            "The total latency distributions of save called by snapshot.", &out)
        metrics.snapshots.write(
            "etcd_disk_backend_snapshot_duration_seconds",
            "The latency distribution of backend snapshots.", &out)
        out.gauge(
            "etcd_server_snapshot_apply_in_progress_total",
            "1 if the server is applying the incoming snapshot. 0 if none.",
            status.isInstallingSnapshot ? 1 : 0)
        metrics.hashes.write(
            "etcd_mvcc_hash_duration_seconds",
            "The latency distribution of storage hash operation.", &out)
        metrics.revisionHashes.write(
            "etcd_mvcc_hash_rev_duration_seconds",
            "The latency distribution of storage hash by revision operation.", &out)
        status.compaction.pieces.writeMilliseconds(
            "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
            "Bucketed histogram of db compaction pause duration.", &out)
        status.compaction.whole.writeMilliseconds(
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
            "Bucketed histogram of db compaction total duration.", &out)
        out.gauge(
            "etcd_debugging_mvcc_db_compaction_last",
            "The unix time of the last db compaction. Resets to 0 on start.",
            status.compaction.endedAt)
        out.counter(
            "etcd_debugging_mvcc_db_compaction_keys_total", "Total number of db keys compacted.",
            status.compactedRowsTotal)
    }
}
