import CLinux
import Glibc
package import Primitives

/// `polder dev`: starts one process per node, says when all of them serve, and stays in the foreground
/// until it is told to stop. One thread, one `poll` loop: signals and `polder dev-node` arrive as
/// readable descriptors.
///
/// A node that dies stays dead until somebody asks for it, so that failures can be observed.
package final class LocalCluster {
    /// Why the command ends, with the exit code of the contract with scripts.
    package struct Failure: Error, Equatable {
        package let exitCode: Int32
        package let message: String
        package init(exitCode: Int32, message: String) {
            self.exitCode = exitCode
            self.message = message
        }
    }

    /// What the supervisor needs from the rest of the program; tests give their own.
    package struct Environment {
        /// Program and first arguments of a node; the configuration file follows.
        package var serve: [String]
        /// Creates what is missing of the files that the plan names.
        package var makeCertificates: (LocalClusterPlan) throws -> Void
        /// Does this node answer a linearizable read? Takes a second at most.
        package var isServing: (LocalClusterPlan, LocalNode) -> Bool
        package var say: (String) -> Void
        package var startLimit: TimeSpan = .seconds(60)
        package var stopLimit: TimeSpan = .seconds(15)
        package init(
            serve: [String], makeCertificates: @escaping (LocalClusterPlan) throws -> Void,
            isServing: @escaping (LocalClusterPlan, LocalNode) -> Bool,
            say: @escaping (String) -> Void
        ) {
            self.serve = serve
            self.makeCertificates = makeCertificates
            self.isServing = isServing
            self.say = say
        }
    }

    let plan: LocalClusterPlan
    let environment: Environment
    private var clusterID: UInt64 = 0
    var running: [String: ChildProcess] = [:]
    var waiters: [Waiter] = []
    private var signals: Int32 = -1
    private var control: Int32 = -1
    private var lock: Int32 = -1
    private var isStopping = false

    /// A `dev-node stop` whose node has not ended yet.
    struct Waiter {
        let node: String
        let descriptor: Int32
        let deadline: Instant
        let wipes: Bool
    }

    package init(_ settings: LocalClusterSettings, environment: Environment) {
        plan = LocalClusterPlan(settings)
        self.environment = environment
    }

    // MARK: Running

    /// Returns after a clean stop.
    package func run() throws(Failure) {
        try prepareDirectory()
        defer { cleanUp() }
        try checkPorts()
        do {
            try environment.makeCertificates(plan)
            for node in plan.nodes { try writeConfiguration(of: node) }
            signals = try LocalCluster.receiveSignals()
            control = try ControlSocket.listen(plan.controlSocket)
            for node in plan.nodes { try start(node) }
        } catch {
            stopAll()
            throw Failure(exitCode: 3, message: "\(error)")
        }
        guard try waitUntilServing() else { return stopAll() }
        writeDescription()
        announce()
        while !isStopping { turn(timeoutMilliseconds: 200) }
        stopAll()
    }

    private func waitUntilServing() throws(Failure) -> Bool {
        let deadline = LocalCluster.now.advanced(by: environment.startLimit)
        var waiting = plan.nodes
        while !waiting.isEmpty {
            turn(timeoutMilliseconds: 20)
            if isStopping { return false }
            if let dead = waiting.first(where: { running[$0.name] == nil }) {
                stopAll()
                throw Failure(exitCode: 4, message: explain("\(dead.name) ended at its start", dead))
            }
            waiting.removeAll { environment.isServing(plan, $0) }
            if let slow = waiting.first, LocalCluster.now > deadline {
                stopAll()
                throw Failure(
                    exitCode: 4,
                    message: explain(
                        "\(slow.name) does not answer after \(environment.startLimit.text)", slow))
            }
        }
        return true
    }

    private func explain(_ what: String, _ node: LocalNode) -> String {
        let lines = Files.lastLines(of: node.log, count: 12)
        return ([what + "; its last log lines (\(node.log)):"] + lines.map { "  " + $0 })
            .joined(separator: "\n")
    }

    private func announce() {
        let shape = plan.settings.shape, tls = plan.settings.tls
        environment.say(
            "polder dev: \(shape.regions) region(s) of \(shape.nodes) node(s), "
                + "\(shape.partitions) partitions, \(tls ? "mutual TLS" : "no TLS"), "
                + "data in \(plan.settings.directory)")
        for region in plan.regions {
            let urls = plan.nodes(of: region).map { $0.clientURL(tls: tls) }
            environment.say(
                "  \(LocalClusterPlan.regionName(region))  \(urls.joined(separator: " "))")
        }
        environment.say("try:")
        environment.say("  \(plan.etcdctlLine(region: plan.regions[0])) put hello world")
        environment.say("  \(plan.etcdctlLine(region: plan.regions[plan.regions.count - 1])) get hello")
        environment.say("Ctrl-C stops it; started again with the same directory it resumes.")
        environment.say("ready")
    }

    // MARK: Before the start

    private func prepareDirectory() throws(Failure) {
        do {
            try Files.makeDirectory(plan.settings.directory)
            guard let held = try Files.lock(plan.lockFile) else {
                throw Failure(
                    exitCode: 3,
                    message: "\(plan.settings.directory) is in use by another polder dev")
            }
            lock = held
            try adoptShape()
            // Whoever waits for the file must not find the one of an earlier run.
            try Files.removeTree(plan.description)
            for node in plan.nodes { try Files.makeDirectory(node.directory) }
        } catch let failure as Failure {
            throw failure
        } catch {
            throw Failure(exitCode: 3, message: "\(error)")
        }
    }

    private func adoptShape() throws {
        let asked = plan.settings.shape
        if let kept = try LocalCluster.keptShape(in: plan.settings.directory) {
            guard kept.shape == asked else {
                throw Failure(
                    exitCode: 3,
                    message: "\(plan.settings.directory) holds a cluster of \(kept.shape.regions) "
                        + "region(s) of \(kept.shape.nodes) node(s) with \(kept.shape.partitions) "
                        + "partitions; give the same flags (or none), or another --data-dir")
            }
            clusterID = kept.clusterID
            return
        }
        clusterID = UInt64.random(in: 1...UInt64.max)
        let text = """
            # Written by polder dev: the shape of the data in this directory.
            clusterID: \(clusterID)
            regions: \(asked.regions)
            nodes: \(asked.nodes)
            partitions: \(asked.partitions)

            """
        try Files.writeAtomically(text, to: plan.shapeFile)
    }

    /// What an earlier run in this directory was; nil when there was none.
    package static func keptShape(
        in directory: String
    ) throws -> (clusterID: UInt64, shape: LocalClusterSettings.Shape)? {
        let file = directory + "/cluster.yaml"
        guard Files.exists(file) else { return nil }
        var reader = try YAMLReader(text: try Files.read(file), file: file)
        let id = try reader.required("clusterID", try reader.id64("clusterID"))
        let shape = LocalClusterSettings.Shape(
            regions: try reader.required("regions", try reader.integer("regions", in: 1...8)),
            nodes: try reader.required("nodes", try reader.integer("nodes", in: 1...9)),
            partitions: try reader.required(
                "partitions", try reader.integer("partitions", in: 1...4096)))
        try reader.finish()
        return (id, shape)
    }

    private func checkPorts() throws(Failure) {
        for node in plan.nodes {
            for port in [node.clientPort, node.peerPort] where !PortCheck.isFree(port) {
                throw Failure(
                    exitCode: 3,
                    message: "port \(port) (wanted by \(node.name)) is taken; "
                        + "see who has it with `ss -ltnp 'sport = :\(port)'`, or choose others "
                        + "with --base-port")
            }
        }
    }

    func writeConfiguration(of node: LocalNode) throws(SystemError) {
        try Files.writeAtomically(
            plan.configuration(of: node, clusterID: clusterID).yaml, to: node.configurationFile)
    }

    func writeDescription() {
        let text = plan.json(pids: running.mapValues(\.pid))
        do {
            try Files.writeAtomically(text, to: plan.description)
        } catch {
            environment.say("polder dev: \(error)")
        }
    }

    // MARK: Processes

    func start(_ node: LocalNode) throws(SystemError) {
        let words = environment.serve
        running[node.name] = try ChildProcess.start(
            words[0], Array(words.dropFirst()) + [node.configurationFile], log: node.log)
    }

    private func onChildren() {
        let ended = ChildProcess.reap()
        for child in ended {
            guard let name = running.first(where: { $0.value.pid == child.pid })?.key else { continue }
            running[name] = nil
            let asked = isStopping || waiters.contains { $0.node == name }
            if !asked { environment.say("polder dev: \(name) ended (\(child.description))") }
            answerWaiters(of: name)
        }
        if !ended.isEmpty, !isStopping, Files.exists(plan.description) { writeDescription() }
    }

    private func stopAll() {
        isStopping = true
        for child in running.values {
            child.signal(SIGTERM)
            child.signal(SIGCONT)
        }
        let deadline = LocalCluster.now.advanced(by: environment.stopLimit)
        while !running.isEmpty {
            if LocalCluster.now > deadline { for child in running.values { child.signal(SIGKILL) } }
            turn(timeoutMilliseconds: 20)
        }
    }

    private func cleanUp() {
        try? Files.removeTree(plan.description)
        try? Files.removeTree(plan.controlSocket)
        for descriptor in [signals, control, lock] where descriptor >= 0 { close(descriptor) }
    }

    // MARK: The loop

    package static var now: Instant {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return Instant(
            nanoseconds: UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
    }

    private static func receiveSignals() throws(SystemError) -> Int32 {
        let descriptor = polder_receive_signals([SIGINT, SIGTERM, SIGHUP, SIGCHLD], 4)
        guard descriptor >= 0 else { throw SystemError("cannot receive signals") }
        return descriptor
    }

    private func turn(timeoutMilliseconds: Int32) {
        guard signals >= 0 else { return onChildren() }
        var ready = [
            pollfd(fd: signals, events: Int16(POLLIN), revents: 0),
            pollfd(fd: control, events: Int16(POLLIN), revents: 0),
        ]
        _ = poll(&ready, 2, timeoutMilliseconds)
        if ready[0].revents != 0 { takeSignals() }
        onChildren()
        if control >= 0, ready[1].revents != 0 { acceptControl(control) }
        expireWaiters()
    }

    private func takeSignals() {
        while true {
            let number = polder_take_signal(signals)
            if number == 0 { return }
            if number != SIGCHLD { isStopping = true }
        }
    }
}
