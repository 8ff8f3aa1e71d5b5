import EtcdAPI
import EtcdFacade
import Node
import Primitives
import Storage
import Transport

/// What watchers are told on a node that serves a part of the region.
extension Host {
    /// True: the facade is told later, of everybody's changes.
    func joinChanges() -> Bool {
        guard isPartial || joined.due > joined.emitted else {
            if let through = effects.changesThrough ?? effects.changesLost { joined.pass(through) }
            joined.servedVersion = servedVersion
            return false
        }
        if joined.servedVersion != servedVersion {
            joined.servedVersion = servedVersion
            let through = max(joined.due, effects.changesThrough ?? effects.changesLost ?? .zero)
            joined.isUnderWay = false
            joined.lose(through: through)
            facade?.onChangesLost(through: through)
            return true
        }
        if let lost = effects.changesLost {
            joined.lose(through: lost)
            facade?.onChangesLost(through: lost)
        }
        guard let through = effects.changesThrough else { return true }
        if !joined.add(effects.changes, through: through) {
            joined.lose(through: through)
            facade?.onChangesLost(through: through)
        }
        proceedJoining()
        return true
    }

    private func proceedJoining() {
        guard !joined.isUnderWay, joined.due > joined.emitted, let facade else { return }
        let due = joined.due
        guard facade.needsChanges else {
            joined.pass(due)
            return facade.onChanges([], through: due)
        }
        joined.isUnderWay = true
        ask(through: due, servedVersion)
    }

    private func ask(through due: Revision, _ version: UInt64) {
        guard joined.servedVersion == version, joined.isUnderWay, joined.due >= due, joined.emitted < due else {
            return
        }
        elsewhere.beginRead()
        do throws(RequestError) {
            let found = try join(joined.own, through: due, after: joined.emitted, asked: due)
            joined.isUnderWay = false
            joined.pass(found.through)
            facade?.onChanges(found.changes, through: found.through)
        } catch {
            if error == .elsewhere || error == .tooManyRequests {
                return whenFetched { [weak self] in
                    guard let self, !isStopped else { return }
                    ask(through: due, version)
                }
            }
            // Compacted: who still needs it is told so.
            joined.isUnderWay = false
            joined.lose(through: due)
            facade?.onChangesLost(through: due)
            return
        }
        server.flush()
        proceedJoining()
    }
}
