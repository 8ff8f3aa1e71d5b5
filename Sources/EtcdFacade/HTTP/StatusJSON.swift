import Primitives

/// What `polder status -o json` and `polder conflicts` show (dev-contract.md).
extension Facade {
    func statusJSON() -> String {
        let status = node.status
        var json = JSONWriter()
        json.object { json in
            json.member("region", status.region)
            json.member("node", status.name)
            json.member("clusterID", String(status.clusterID, radix: 16))
            json.member("version", versions.polder)
            json.member("etcdVersion", versions.etcd)
            json.member("featureLevel", Int64(status.featureLevel))
            json.member("revision", status.revision.rawValue)
            json.member("compactRevision", status.compactRevision.rawValue)
            json.member("ready", status.isReady)
            json.list("problems") { json in status.problems.forEach { json.value($0) } }
            json.name("sequencer")
            if let sequencer = status.sequencer {
                json.object { json in
                    json.member("node", status.nodeName(sequencer))
                        json.member("epoch", status.epochRound)
                    json.list("voters") { json in
                        for voter in status.directoryVoters { json.value(status.nodeName(voter)) }
                    }
                }
            } else {
                json.null()
            }
            json.list("regions") { json in
                json.object { $0.region(status, versions) }
                for link in status.geoLinks {
                    json.object { json in
                        json.member("name", link.origin)
                        json.member("connected", link.isConnected)
                        if let lag = link.lagSeconds { json.member("lagSeconds", lag) }
                        if let lag = link.lagRevisions { json.member("lagRevisions", lag) }
                    }
                }
            }
            json.list("partitions") { json in
                for partition in status.partitions {
                    json.object { $0.partition(partition, status) }
                }
            }
            json.member("replicas", Int64(status.replicas))
            json.member("spread", status.isSpread)
            json.name("split")
            if let split = status.pendingSplit {
                json.object { $0.split(split) }
            } else {
                json.null()
            }
            json.list("conflicts") { json in
                for count in status.conflicts {
                    json.object { json in
                        json.member("policy", count.policy)
                        json.member("total", count.total)
                    }
                }
            }
        }
        return json.text
    }

    func conflictsJSON(limit: Int) -> String {
        var json = JSONWriter()
        json.object { json in
            json.list("conflicts") { json in
                for conflict in node.conflicts(limit: limit) {
                    json.object { json in
                        json.member("key", base64(conflict.key))
                        json.member("keyText", conflict.key.description)
                        json.member("policy", conflict.policy)
                        json.member("revision", conflict.revision.rawValue)
                        json.object("winner", { $0.origin(conflict.winner) })
                        json.object("loser", { $0.origin(conflict.loser) })
                        json.member("loserDeleted", conflict.loserIsDeletion)
                        json.member("loserValue", base64(conflict.loserValue))
                    }
                }
            }
        }
        return json.text
    }
}

extension NodeStatus {
    fileprivate func nodeName(_ node: NodeID) -> String {
        members.first { $0.node == node && node != .none }?.name ?? "node \(node)"
    }
}

extension JSONWriter {
    fileprivate mutating func region(_ status: NodeStatus, _ versions: ServedVersions) {
        member("name", status.region)
        member("connected", true)
        list("nodes") { json in
            for member in status.members {
                json.object { json in
                    json.member("name", member.name)
                    json.member("id", String(member.id, radix: 16))
                    json.member("health", member.isHealthy ? "healthy" : "unreachable")
                    json.member("version", member.version)
                    json.member(
                        "sequencer", status.sequencer != nil && status.sequencer == member.node)
                    json.member("learner", member.isLearner)
                    json.member("drained", member.isDrained)
                    json.member("away", member.isAway)
                    json.member("zone", member.zone)
                    json.list("clientURLs") { json in member.clientURLs.forEach { json.value($0) } }
                    json.list("peerURLs") { json in member.peerURLs.forEach { json.value($0) } }
                }
            }
        }
    }

    fileprivate mutating func partition(_ partition: NodeStatus.Partition, _ status: NodeStatus) {
        member("id", partition.id.rawValue)
        member("range", partition.range.text)
        name("leader")
        if let leader = partition.leader { value(status.nodeName(leader)) } else { null() }
        member("term", String(describing: partition.term))
        list("replicas") { json in
            for replica in partition.replicas { json.value(status.nodeName(replica)) }
        }
        list("voters") { json in
            for voter in partition.voters { json.value(status.nodeName(voter)) }
        }
        member("applied", partition.applied.rawValue)
        member("decided", partition.decided.rawValue)
        member("writes", partition.writesTotal)
    }

    mutating func split(_ split: PartitionSplit) {
        member("parent", split.parent.rawValue)
        member("child", split.child.rawValue)
        member("cut", HashRange.hex(split.cut))
    }

    fileprivate mutating func origin(_ origin: Origin) {
        member("region", origin.region.rawValue)
        member("revision", origin.revision.rawValue)
        member("stamp", origin.stamp.ticks)
    }
}

extension HashRange {
    fileprivate var text: String {
        "\(Self.hex(first))-\(Self.hex(last))"
    }

    fileprivate static func hex(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
