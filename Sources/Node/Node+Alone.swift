import Consensus
import Partitioning
package import Primitives

// etcd's --force-new-cluster: a region of one, made from what one member holds, because all others are
// lost. Every group elects this node alone and decides what its log holds; then the directory gets a
// list without the others, and then each group an entry that says so. Until the last of them is decided,
// a restart must say it again.
extension Node {
    /// What is still to be written.
    struct Alone: Sendable {
        var groups: Set<Int>
        /// The version of the list that has been proposed. Another change of the list may be faster.
        var listAsked: UInt64 = 0
    }

    /// Before the first input.
    package mutating func standAlone(at clock: ClockReading, into effects: inout NodeEffects) {
        self.clock = clock
        let present = groups.indices.filter { $0 == 0 || isPresent[$0 - 1] }
        alone = Alone(groups: Set(present))
        for i in present {
            groups[i].standAlone(at: now)
            groupWakeIsOld[i] = true
            touched[i] = true
        }
        membershipAt = now
        refreshNodes(into: &effects)
    }

    package var isBecomingAlone: Bool { alone != nil }

    /// In the place of `follow`. True: there is nothing left to do for this group.
    mutating func followAlone(_ i: Int, into effects: inout NodeEffects) -> Bool {
        guard alone?.groups.contains(i) == true else { return true }
        let list = directory.members
        guard list.nodes == [node], list.mayLead(node) else {
            let next = listOfOne(list)
            if i == 0, next.version > alone?.listAsked ?? .max, groups[0].leaseHolds(at: now) {
                alone?.listAsked = next.version
                region.proposals.append((.directory, EntryBody.members(next).encoded()))
                drain(into: &effects)
            }
            return false
        }
        var next = groups[i].configuration
        next.version = list.version
        touched[i] = true
        _ = groups[i].propose(next, at: now, into: &groupEffects)
        perform(i, into: &effects)
        return false
    }

    private func listOfOne(_ list: RegionMembers) -> RegionMembers {
        var next = list.version > 0 ? list : configuration.founding
        next.version = list.version + 1
        next.members.removeAll { $0.node != node }
        next.placement.wishes = []
        for i in next.members.indices {
            next.members[i].isLearner = false
            next.members[i].isDrained = false
            next.members[i].isAway = false
        }
        return next
    }

    /// A configuration of this group has been decided.
    mutating func noticeAlone(_ i: Int, _ next: Configuration) {
        guard alone != nil, next.voters == [node], next.version == directory.members.version else {
            return
        }
        alone?.groups.remove(i)
        if alone?.groups.isEmpty == true { alone = nil }
    }
}
