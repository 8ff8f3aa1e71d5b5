import Primitives
import Testing

@testable import NodeHost

@Suite struct HostConfigurationTests {
    private let least = """
        region: {id: 1, name: r1}
        node: {id: 1, name: n1}
        dataDir: /var/lib/polder
        nodes:
          - {id: 1, name: n1, peer: "127.0.0.1:2380", client: ["http://127.0.0.1:2379"]}

        """

    private func refusal(_ yaml: String) -> String {
        do throws(ConfigurationError) {
            _ = try HostConfiguration(yaml: yaml, file: "node.yaml")
            return "accepted"
        } catch {
            return error.description
        }
    }

    @Test func `the least configuration is one node with etcd's ports`() throws {
        let configuration = try HostConfiguration(yaml: least, file: "node.yaml")
        #expect(configuration.clientAddress.port == 2379)
        #expect(configuration.peerAddress.port == 2380)
        #expect(configuration.partitions == 8)
        #expect(configuration.clusterID == HostConfiguration.clusterID(named: "polder"))
        #expect(configuration.clientTLS == nil)
    }

    @Test func `what is written reads back equal`() throws {
        var settings = LocalClusterSettings(directory: "/tmp/with \"quotes\" and ümlaut")
        settings.wanDelay = .milliseconds(80)
        settings.faultInjection = true
        let plan = LocalClusterPlan(settings)
        for node in plan.nodes {
            var configuration = plan.configuration(of: node, clusterID: 0xFEDC_BA98_7654_3210)
            configuration.access.profiles = node.name.hasSuffix("1")
            let read = try HostConfiguration(yaml: configuration.yaml, file: "node.yaml")
            #expect(read == configuration)
        }
    }

    @Test func `what YAML has no place for is written all the same, and what is switched off too`() throws {
        var configuration = try HostConfiguration(yaml: least, file: "node.yaml")
        configuration.dataDirectory = "/tmp/\u{1}\u{1B}\u{7F}\u{85}\u{A0}\u{2028}\u{FEFF}\u{FFFF}x"
        configuration.splits.partitionsMax = 640
        let read = try HostConfiguration(yaml: configuration.yaml, file: "node.yaml")
        #expect(read == configuration)
    }

    @Test func `an unknown key is named with its line`() {
        #expect(refusal(least + "colour: blue\n") == "node.yaml:6: colour: unknown key")
        #expect(
            refusal(least + "limits:\n  requestBytesMaxx: 3\n")
                == "node.yaml:7: limits.requestBytesMaxx: unknown key")
    }

    @Test func `a wrong type is named with its path`() {
        #expect(
            refusal(least + "partitions: many\n")
                == "node.yaml:6: partitions: expected a whole number")
        #expect(
            refusal(least + "partitions: 0\n")
                == "node.yaml:6: partitions: 0 is not between 1 and 4096")
        #expect(
            refusal(least + "listen: {client: localhost}\n")
                == "node.yaml:6: listen.client: expected an address such as 10.0.0.1:2379 or [::1]:2379")
        #expect(
            refusal(least + "faultInjection: perhaps\n")
                == "node.yaml:6: faultInjection: expected true or false")
        #expect(
            refusal(least + "log: {level: loud}\n")
                == "node.yaml:6: log.level: expected one of trace, debug, info, notice, warning, "
                + "error, critical")
    }

    @Test func `a key given twice is refused`() {
        #expect(refusal(least + "partitions: 8\npartitions: 9\n").contains("given twice: partitions"))
    }

    @Test func `what is no YAML or no mapping is refused`() {
        #expect(refusal("").contains("empty"))
        #expect(refusal("- 1\n- 2\n") == "node.yaml:1: expected keys and values")
        #expect(refusal("a: [\n").contains("not YAML"))
        #expect(refusal("\u{0}\u{1}").contains("node.yaml"))
    }

    @Test func `values that do not go together are refused`() {
        #expect(refusal(least.replacing("id: 1, name: n1}\nd", with: "id: 2, name: n1}\nd"))
            .contains("node 2 (this one) is not in the list"))
        #expect(refusal(least.replacing("node: {id: 1, name: n1}", with: "node: {id: 1, name: x}"))
            .contains("node 1 is n1 here, but node.name is x"))
        #expect(refusal(least + """
            regions:
              - {id: 1, name: r2, nodes: [{id: 1, peer: "127.0.0.1:2390"}]}
            """).contains("this region's own"))
        #expect(refusal(least + """
            regions:
              - {id: 2, name: r2, nodes: [{id: 1, peer: "127.0.0.1:2380"}]}
            """).contains("two nodes have the same peer address"))
        #expect(refusal(least + "listen: {client: \"127.0.0.1:2380\"}\n").contains("same address"))
    }

    @Test func `a missing key is named`() {
        #expect(refusal("node: {id: 1, name: n1}\n").contains("region is missing"))
        #expect(
            refusal(least.replacing("dataDir: /var/lib/polder\n", with: "")).contains(
                "dataDir is missing"))
    }

    @Test(arguments: [
        ("127.0.0.1:2379", "127.0.0.1:2379"), ("[::1]:2379", "[::1]:2379"), ("a-b.c:1", "a-b.c:1"),
    ])
    func `addresses read and print alike`(text: String, printed: String) {
        #expect(NetworkAddress(text)?.description == printed)
    }

    @Test(arguments: [
        "", ":", "a", "a:", ":1", "::1:2379", "a:0", "a:65536", "a:-1", "a:1x", "[a]:1", "[::1]",
        "a b:1", "[::1]2379", "http://a:1", "a:99999999999999999999",
    ])
    func `what is no address is refused`(text: String) {
        #expect(NetworkAddress(text) == nil)
    }

    @Test func `times have units`() {
        #expect(TimeSpan(text: "80ms") == .milliseconds(80))
        #expect(TimeSpan(text: "0") == .zero)
        #expect(TimeSpan(text: "5m") == .seconds(300))
        #expect(TimeSpan(text: "250us") == .microseconds(250))
        #expect(TimeSpan(text: "80") == nil)
        #expect(TimeSpan(text: "-1s") == nil)
        #expect(TimeSpan(text: "99999999999999999999s") == nil)
        for span in [TimeSpan.zero, .milliseconds(1500), .seconds(2), .microseconds(7)] {
            #expect(TimeSpan(text: span.text) == span)
        }
    }

    @Test func `member ids differ between nodes and regions and are never zero`() {
        var seen: Set<UInt64> = []
        for region in 1...4 {
            for node in 1...9 {
                seen.insert(
                    HostConfiguration.memberID(
                        cluster: 42, region: RegionID(UInt16(region)), node: NodeID(UInt16(node))))
            }
        }
        #expect(seen.count == 36 && !seen.contains(0))
    }
}
