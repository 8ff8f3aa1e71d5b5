import CLinux
import Glibc
import Primitives

/// What `polder dev-node` can ask for.
package enum LocalNodeAction: String, CaseIterable, Sendable {
    case start, stop, kill, freeze, thaw, wipe
}

extension LocalCluster {
    /// Asks the `polder dev` of `directory`; returns its answer's text.
    package static func ask(
        directory: String, action: LocalNodeAction, node: String
    ) throws(Failure) -> String {
        let answer: String?
        do {
            answer = try ControlSocket.ask(
                directory + "/control.sock", "\(action.rawValue) \(node)")
        } catch {
            throw Failure(exitCode: 3, message: "\(error)")
        }
        guard let answer else {
            throw Failure(
                exitCode: 3,
                message: "no polder dev is running on \(directory); start it with "
                    + "`polder dev --data-dir \(shellQuoted(directory))`")
        }
        let text = answer.split(separator: "\n").first.map(String.init) ?? ""
        if text.hasPrefix("ok ") { return String(text.dropFirst(3)) }
        if text.hasPrefix("usage ") {
            throw Failure(exitCode: 2, message: String(text.dropFirst(6)))
        }
        throw Failure(
            exitCode: 4,
            message: text.hasPrefix("error ") ? String(text.dropFirst(6)) : "polder dev went away")
    }

    // MARK: In the supervisor

    func acceptControl(_ listener: Int32) {
        let descriptor = polder_accept(listener)
        guard descriptor >= 0 else { return }
        // A peer that says nothing must not stop the loop for long.
        var limit = timeval(tv_sec: 1, tv_usec: 0)
        setsockopt(
            descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var line: [UInt8] = []
        var byte: UInt8 = 0
        while line.count < 200, read(descriptor, &byte, 1) == 1, byte != UInt8(ascii: "\n") {
            line.append(byte)
        }
        onRequest(String(decoding: line, as: UTF8.self), from: descriptor)
    }

    private func onRequest(_ line: String, from descriptor: Int32) {
        let words = line.split(separator: " ").map(String.init)
        guard words.count == 2, let action = LocalNodeAction(rawValue: words[0]) else {
            return finish(descriptor, "usage not a request: \(line)")
        }
        guard let node = plan.nodes.first(where: { $0.name == words[1] }) else {
            let names = plan.nodes.map(\.name).joined(separator: ", ")
            return finish(descriptor, "usage there is no node \(words[1]); there are \(names)")
        }
        perform(action, on: node, for: descriptor)
    }

    private func perform(_ action: LocalNodeAction, on node: LocalNode, for descriptor: Int32) {
        let child = running[node.name]
        switch (action, child) {
        case (.start, let child?):
            finish(descriptor, "ok \(node.name) is running already, process \(child.pid)")
        case (.start, nil):
            do {
                try start(node)
                writeDescription()
                finish(
                    descriptor, "ok \(node.name) started, process \(running[node.name]?.pid ?? 0)")
            } catch {
                finish(descriptor, "error \(error)")
            }
        case (.stop, let child?):
            child.signal(SIGTERM)
            child.signal(SIGCONT)
            wait(for: node, descriptor, wipes: false)
        case (.kill, let child?):
            child.signal(SIGKILL)
            wait(for: node, descriptor, wipes: false)
        case (.wipe, let child?):
            child.signal(SIGKILL)
            wait(for: node, descriptor, wipes: true)
        case (.freeze, let child?):
            child.signal(SIGSTOP)
            finish(descriptor, "ok \(node.name) frozen")
        case (.thaw, let child?):
            child.signal(SIGCONT)
            finish(descriptor, "ok \(node.name) thawed")
        case (.wipe, nil):
            wipe(node, descriptor)
        case (.stop, nil), (.kill, nil):
            finish(descriptor, "ok \(node.name) is not running")
        case (.freeze, nil), (.thaw, nil):
            finish(descriptor, "error \(node.name) is not running")
        }
    }

    private func wait(for node: LocalNode, _ descriptor: Int32, wipes: Bool) {
        waiters.append(
            Waiter(
                node: node.name, descriptor: descriptor,
                deadline: LocalCluster.now.advanced(by: environment.stopLimit), wipes: wipes))
    }

    func answerWaiters(of name: String) {
        let done = waiters.filter { $0.node == name }
        waiters.removeAll { $0.node == name }
        writeDescription()
        for waiter in done {
            if waiter.wipes, let node = plan.nodes.first(where: { $0.name == name }) {
                wipe(node, waiter.descriptor)
            } else {
                finish(waiter.descriptor, "ok \(name) stopped")
            }
        }
    }

    func expireWaiters() {
        let now = LocalCluster.now
        for waiter in waiters where waiter.deadline < now {
            finish(waiter.descriptor, "error \(waiter.node) has not ended in time")
        }
        waiters.removeAll { $0.deadline < now }
    }

    private func wipe(_ node: LocalNode, _ descriptor: Int32) {
        do {
            try Files.removeTree(node.dataDirectory)
            finish(descriptor, "ok \(node.name) stopped and its data removed")
        } catch {
            finish(descriptor, "error \(error)")
        }
    }

    private func finish(_ descriptor: Int32, _ answer: String) {
        ControlSocket.send(answer + "\n", to: descriptor)
        close(descriptor)
    }
}
