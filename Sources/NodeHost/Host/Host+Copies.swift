import Logging
import NIOCore
import Node
import Partitioning
import Primitives
import Storage

/// Another region needs history that is compacted: it is new, or was configured after it. It gets what is
/// left, once the store has it in order (Store+Copies).
extension Host {
    func readRest(_ read: ChangeRead) {
        // Who asks again has forgotten the question before.
        restsWanted.removeAll { $0.region == read.region }
        restsWanted.append(read)
        guard restsWanted.count == 1 else { return }
        logger.notice(
            "a region needs compacted history: it gets what is left",
            metadata: ["region": "\(read.region)", "after": "\(read.after.rawValue)"])
        readyRest()
    }

    /// About two milliseconds at a time, as a compaction.
    private func readyRest() {
        guard !isStopped, !end.hasFailed, !restsWanted.isEmpty else { return }
        let before = Clocks.instant()
        do throws(StorageError) {
            var isReady = false
            repeat {
                isReady = try store.completeIndexStep(budget: 128, in: .standard)
            } while !isReady && !isCompacting && Clocks.instant().since(before) < .milliseconds(2)
            if isReady { return answerRests() }
        } catch {
            end.fail(HostFailure(error))
            return
        }
        loop.scheduleTask(in: .milliseconds(isCompacting ? 20 : 2)) { self.readyRest() }
    }

    private func answerRests() {
        let reads = restsWanted
        restsWanted.removeAll()
        for read in reads {
            do throws(RequestError) {
                let page = try store.changes(
                    after: read.after, through: read.through, in: .standard, maxRows: read.maxRows,
                    takesRest: true)
                enqueue(
                    .changesRead(
                        read.region, after: read.after, changes: page.changes, through: page.through))
            } catch {
                enqueue(.changesRead(read.region, after: read.after, changes: nil, through: read.after))
            }
        }
    }
}
