package import Primitives

// A replica that the region does without may forget its log (docs/decisions/0016), and have a successor under
// the same name. Nobody may notice, so:
//
// - It goes only when a majority of the voters of the configuration that does without it hold the log through
//   the slot in which that took effect. Before, its copy may be one of those that make an entry chosen.
// - Its leader says so, in answer to a question, and must know of everything that this replica may count for:
//   its ballot is none that this replica has promised higher than, and nobody has spoken to it by a later
//   configuration.
// - Who comes after it keeps its promises, and counts for nobody until a snapshot has brought it to that slot:
//   a candidate that does not know of the configuration yet would take what was forgotten for what never was.
extension Group {
    /// What was accepted here is gone, and has not come back.
    package var awaitsSnapshot: Bool { decided < lostThrough && !Mutation.forgottenLogsCount.isOn }

    /// This replica may go: through here its copy of the log is not needed any more.
    package var releasedThrough: Slot? {
        guard let release, role == .follower || role == .asking, release.ballot >= promised,
            release.configuration >= max(heardConfiguration, configuration.number),
            release.configuration > configuration.number || !configuration.contains(node)
        else { return nil }
        return release.through
    }

    /// To be sent to whoever leads the group.
    package mutating func askRelease() -> GroupMessage {
        if releaseQuestion == 0 { releaseQuestion = luck.next() | 1 }
        return .askRelease(.init(question: releaseQuestion, promised: promised))
    }

    mutating func onAskRelease(
        _ ask: GroupMessage.AskRelease, from: NodeID, at now: Instant, into effects: inout Effects
    ) {
        highestRound = max(highestRound, ask.promised.round)
        guard isLeading, !configuration.contains(from) else { return }
        guard ask.promised <= promised else { return standDown(at: now, into: &effects) }
        let at = configuredAt
        guard isMajority(me: onDisk >= at, { $0.acked >= at }) || Mutation.releasedEarly.isOn
        else { return }
        effects.append(
            .send(
                to: from,
                .released(
                    .init(
                        question: ask.question, ballot: promised, configuration: configuration.number,
                        through: at))))
    }

    mutating func onReleased(_ answer: GroupMessage.Release) {
        guard answer.question == releaseQuestion, releaseQuestion != 0 else { return }
        if answer.configuration >= release?.configuration ?? 0 { release = answer }
    }

    mutating func heard(_ configuration: UInt64) {
        heardConfiguration = max(heardConfiguration, configuration)
    }
}
