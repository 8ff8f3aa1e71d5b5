import Primitives

extension HostConfiguration {
    /// The same configuration as YAML: what `polder dev` writes for its nodes. Reading it gives back an
    /// equal value (a test says so).
    package var yaml: String {
        var out = YAMLWriter()
        out.line("cluster:")
        out.line("  name: \(quoted(clusterName))")
        out.line("  id: \(clusterID)")
        out.line("region: {id: \(regionID), name: \(quoted(regionName))}")
        out.line("node: {id: \(nodeID), name: \(quoted(nodeName))}")
        out.line("dataDir: \(quoted(dataDirectory))")
        out.line("listen:")
        out.line("  client: \(quoted("\(clientAddress)"))")
        out.line("  peer: \(quoted("\(peerAddress)"))")
        out.line("nodes:")
        for member in members {
            let urls = member.clientURLs.map(quoted).joined(separator: ", ")
            out.line("  - id: \(member.id)")
            out.line("    name: \(quoted(member.name))")
            out.line("    peer: \(quoted("\(member.peer)"))")
            out.line("    client: [\(urls)]")
        }
        if !remoteRegions.isEmpty { out.line("regions:") }
        for region in remoteRegions {
            out.line("  - id: \(region.id)")
            out.line("    name: \(quoted(region.name))")
            out.line("    nodes:")
            for node in region.nodes {
                let peer = quoted("\(node.peer)")
                out.line("      - {id: \(node.id), name: \(quoted(node.name)), peer: \(peer)}")
            }
        }
        out.line("partitions: \(partitions)")
        if replicas > 0 { out.line("replicas: \(replicas)") }
        if isSpread { out.line("spread: true") }
        if splits != Splits() {
            out.line(
                "splits: {bytes: \(splits.bytes), writesPerSecond: \(splits.writesPerSecond), "
                    + "period: \(splits.period.text), partitionsMax: \(splits.partitionsMax)}")
        }
        if leaders != LeaderBalance.Rule() {
            out.line(
                "leaders: {balance: \(leaders.isOn), busyPercent: \(leaders.busy / 10), "
                    + "quietPercent: \(leaders.quiet / 10)}")
        }
        if !zone.isEmpty { out.line("zone: \(quoted(zone))") }
        if clientTLS != nil || peerTLS != nil { out.line("tls:") }
        if let clientTLS {
            out.tls("client", clientTLS)
            out.line("    clientCertAuth: \(clientTLS.requiresClientCertificate)")
        }
        if let peerTLS { out.tls("peer", peerTLS) }
        out.line("limits:")
        out.line("  requestBytesMax: \(limits.requestBytesMax)")
        out.line("  transactionOperationsMax: \(limits.transactionOperationsMax)")
        out.line("  blockCacheBytes: \(limits.blockCacheBytes)")
        out.line("  memtableBytes: \(limits.memtableBytes)")
        out.line("  currentCacheBytes: \(limits.currentCacheBytes)")
        out.line("  openFilesMax: \(limits.openFilesMax)")
        out.line("  backgroundJobs: \(limits.backgroundJobs)")
        out.line("  logBytesBeforeFlush: \(limits.logBytesBeforeFlush)")
        out.line("  unreadAnswerBytes: \(limits.unreadAnswerBytes)")
        out.line("  halfSentRequestBytes: \(limits.halfSentRequestBytes)")
        let cors = access.origins.sorted().map(quoted).joined(separator: ", ")
        let hosts = access.hosts.sorted().map(quoted).joined(separator: ", ")
        let profiles = access.profiles ? ", profiles: true" : ""
        out.line(
            "http: {gateway: \(access.isGatewayEnabled), cors: [\(cors)], hosts: [\(hosts)]\(profiles)}")
        out.line("auth:")
        out.line("  token: \(quoted(auth.tokenText))")
        if case .simple(let timeToLive) = auth.tokens {
            out.line("  tokenTTL: \(timeToLive.text)")
        }
        out.line("  bcryptCost: \(auth.bcryptCost)")
        out.line("  certificateNames: \(auth.usesCertificateNames)")
        out.line("log: {level: \(logLevel.rawValue), format: \(logFormat.rawValue)}")
        out.line("faultInjection: \(faultInjection)")
        if featureLevel != FeatureLevel.own { out.line("featureLevel: \(featureLevel)") }
        out.line("wanDelay: \(wanDelay.text)")
        return out.text
    }
}

private struct YAMLWriter {
    var text = ""
    mutating func line(_ line: String) { text += line + "\n" }
    mutating func tls(_ name: String, _ files: HostConfiguration.TLSFiles) {
        line("  \(name):")
        if let ca = files.ca { line("    ca: \(quoted(ca))") }
        line("    cert: \(quoted(files.certificate))")
        line("    key: \(quoted(files.key))")
    }
}

private func quoted(_ text: String) -> String {
    var out = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": out += "\\\""
        case "\\": out += "\\\\"
        case "\n": out += "\\n"
        case "\t": out += "\\t"
        // What YAML 1.1 has no place for in a line (section 5.1), or takes for the end of one.
        case "\u{0}"..<" ", "\u{7F}"..."\u{A0}", "\u{2028}"..."\u{2029}", "\u{FEFF}", "\u{FFFE}"..."\u{FFFF}":
            let digits = String(scalar.value, radix: 16, uppercase: true)
            out += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        default: out.unicodeScalars.append(scalar)
        }
    }
    return out + "\""
}
