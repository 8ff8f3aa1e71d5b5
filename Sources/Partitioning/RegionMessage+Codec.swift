package import Primitives

// The wire form of RegionMessage. Version 1: the outer frame carries the version.

extension ByteWriter {
    package mutating func regionMessage(_ message: RegionMessage) {
        switch message {
        case .allocate(let e, let p, let t, let lapses, let first, let replaced):
            head(1, e)
            id(p)
            ballot(t)
            varint(lapses)
            varint(first)
            varint(replaced.count)
            for s in replaced { stamp(s) }
        case .allocateTransaction(let e, let t, let participants, let replaced, let fence):
            head(2, e)
            transactionID(t)
            list(participants) { $0.participant($1) }
            stamp(replaced)
            varint(fence)
        case .report(let e, let p, let t, let recent):
            head(3, e)
            id(p)
            ballot(t)
            list(recent) { $0.recent($1) }
        case .register(let e, let r):
            // Written as by builds that know of no splits, until there is one (`FeatureLevel.splits`).
            head(r.tellsOfSplits ? 65 : 4, e)
            registration(r)
        case .confirm(let e, let p, let t, let question):
            head(5, e)
            id(p)
            ballot(t)
            varint(question)
        case .confirmTransaction(let e, let t, let participants, let fence):
            head(6, e)
            transactionID(t)
            list(participants) { $0.participant($1) }
            varint(fence)
        case .readQuestion(let e, let question):
            head(7, e)
            varint(question)
        case .never(let e, let t, let r, let p, let term):
            head(8, e)
            transactionID(t)
            id(r)
            id(p)
            ballot(term)
        case .abandon(let e, let t, let r, let by):
            head(9, e)
            transactionID(t)
            id(r)
            ballot(by)
        case .fenced(let e, let p, let t, let fence):
            head(10, e)
            id(p)
            ballot(t)
            varint(fence)
        case .opening(let e): head(20, e)
        case .registered(let e, let p, let t, let fence):
            head(21, e)
            id(p)
            ballot(t)
            varint(fence)
        case .allocated(let e, let p, let t, let first, let allocations):
            head(22, e)
            id(p)
            ballot(t)
            varint(first)
            list(allocations) { $0.allocation($1) }
        case .allocatedTransaction(let e, let t, let allocation):
            head(23, e)
            transactionID(t)
            bool(allocation != nil)
            if let allocation { self.allocation(allocation) }
        case .confirmed(let e, let p, let t, let question, let frontier, let compact, let fence):
            head(24, e)
            id(p)
            ballot(t)
            varint(question)
            id(frontier)
            id(compact)
            varint(fence)
        case .confirmedTransaction(let e, let t, let frontier):
            head(25, e)
            transactionID(t)
            bool(frontier != nil)
            if let frontier { id(frontier) }
        case .readAnswer(let e, let question, let frontier, let compact, let authVersion):
            head(26, e)
            varint(question)
            id(frontier)
            id(compact)
            varint(authVersion)
        case .timeline(let t):
            head(27, t.epoch)
            id(t.frontier)
            id(t.compactRevision)
            id(t.floor)
            varint(t.authVersion)
            varint(t.authFence)
            varint(t.authFenced)
            list(t.tails) {
                $0.ballot($1.term)
                $0.id($1.slot)
            }
        case .recover(let e, let t, let r, let p):
            head(28, e)
            transactionID(t)
            id(r)
            id(p)
        case .abort(let e, let t, let r, let p):
            head(29, e)
            transactionID(t)
            id(r)
            id(p)
        case .transactionVoid(let e, let t, let r):
            head(30, e)
            transactionID(t)
            id(r)
        case .transactionFenced(let e, let t):
            head(31, e)
            transactionID(t)
        case .lock(let request):
            byte(request.tellsOfSplits ? 66 : 40)
            lockRequest(request)
        case .locked(let t, let p, let term, let rows):
            byte(41)
            transactionID(t)
            id(p)
            ballot(term)
            lockedRows(rows)
        case .died(let t, let p):
            byte(42)
            transactionID(t)
            id(p)
        case .prepare(let t, let p, let term, let participants, let e):
            byte(43)
            transactionID(t)
            id(p)
            ballot(term)
            partitions(participants)
            effects(e)
        case .prepared(let t, let p):
            byte(44)
            transactionID(t)
            id(p)
        case .refused(let t, let p):
            byte(45)
            transactionID(t)
            id(p)
        case .release(let t, let p):
            byte(46)
            transactionID(t)
            id(p)
        case .overtaken(let t, let p):
            byte(47)
            transactionID(t)
            id(p)
        case .executedBefore(let t, let p, let revision):
            byte(48)
            transactionID(t)
            id(p)
            bool(revision != nil)
            if let revision { id(revision) }
        case .forward(let token, let request, let within, let fence, let tag):
            let places = tag?.places ?? []
            byte(places.isEmpty ? 60 : 67)
            varint(token)
            self.request(request)
            varint(within.nanoseconds)
            varint(fence)
            requestTag(tag)
            if !places.isEmpty { partitions(places) }
        case .forwarded(let token, let response):
            byte(61)
            varint(token)
            self.response(response)
        case .redirect(let token, let isCertain):
            byte(62)
            varint(token)
            bool(isCertain)
        case .cancelForward(let token):
            byte(63)
            varint(token)
        case .executed(let token, let revision):
            byte(64)
            varint(token)
            id(revision)
        }
    }

    private mutating func head(_ tag: UInt8, _ epoch: Epoch) {
        byte(tag)
        ballot(epoch)
    }
    private mutating func list<T>(_ items: [T], _ write: (inout ByteWriter, T) -> Void) {
        varint(items.count)
        for item in items { write(&self, item) }
    }
    private mutating func requestTag(_ tag: RequestTag?) {
        bool(tag != nil)
        guard let tag else { return }
        name(tag.name)
        varint(tag.attempt)
        varint(tag.mark)
        ballot(tag.gate)
        list(tag.after) { $0.id($1) }
    }
    private mutating func participant(_ p: Participant) {
        id(p.partition)
        ballot(p.term)
        bool(p.writes)
        varint(p.lapses)
    }
    private mutating func allocation(_ a: Allocation) {
        id(a.revision)
        stamp(a.stamp)
    }
    private mutating func recent(_ r: PartitionState.Recent) {
        id(r.revision)
        id(r.slot)
        byte(r.kind.rawValue)
    }
    private mutating func registration(_ r: Registration) {
        id(r.partition)
        ballot(r.term)
        id(r.sealSlot)
        id(r.applied)
        id(r.highestRevision)
        id(r.heardFrontier)
        stamp(r.highestStamp)
        list(r.recent) { $0.recent($1) }
        list(r.undecided) {
            $0.transactionID($1.transaction)
            $0.id($1.revision)
            $0.partitions($1.participants)
        }
        varint(r.lapses)
        guard r.tellsOfSplits else { return }
        id(r.newest)
        bool(r.origin != nil)
        if let origin = r.origin {
            split(origin.split)
            id(origin.slot)
            id(origin.revision)
        }
    }
    private mutating func lockRequest(_ r: LockRequest) {
        transactionID(r.transaction)
        varint(r.start.micros)
        name(r.start.name)
        id(r.partition)
        list(r.footprint.reads) { $0.keyRange($1) }
        list(r.footprint.writes) { $0.keyRange($1) }
        list(r.footprint.sharedLeases) { $0.signed($1.rawValue) }
        list(r.footprint.exclusiveLeases) { $0.signed($1.rawValue) }
        list(r.plan.keys) { $0.bytes($1) }
        list(r.plan.ranges) { $0.keyRange($1) }
        list(r.plan.historic) { $0.rangeQuery($1) }
        list(r.leasesEnding) { $0.signed($1.rawValue) }
        bool(r.onlyExpired)
        bool(r.cursorOf != nil)
        if let region = r.cursorOf { id(region) }
        requestTag(r.tag)
        guard r.tellsOfSplits else { return }
        id(r.newest)
    }
    private mutating func lockedRows(_ l: LockedRows) {
        rows(l.rows)
        list(l.historic) {
            switch $1 {
            case .result(let result):
                $0.byte(0)
                $0.rangeResult(result)
            case .failed(let error):
                $0.byte(1)
                $0.byte(error.rawValue)
            }
        }
        list(l.leasesAlive) { $0.signed($1.rawValue) }
        list(l.leasesKnown) { $0.signed($1.rawValue) }
        list(l.leaseSpread) {
            $0.signed($1.lease.rawValue)
            $0.id($1.partition)
        }
        bool(l.cursor != nil)
        if let cursor = l.cursor { id(cursor) }
        varint(l.lapses)
    }
}

extension Registration {
    fileprivate var tellsOfSplits: Bool { newest != .directory || origin != nil }
}

extension LockRequest {
    fileprivate var tellsOfSplits: Bool { newest != .directory }
}

extension ByteReader {
    package mutating func regionMessage() throws(DecodingError) -> RegionMessage {
        let tag = try byte()
        switch tag {
        case 1:
            let e = try ballot(), p: PartitionID = try id(), t = try ballot()
            let lapses = try varint(), first = try varint()
            var stamps: [Stamp] = []
            for _ in 0..<(try count(atLeast: 2)) { stamps.append(try stamp()) }
            return .allocate(e, p, t, lapses: lapses, first: first, replaced: stamps)
        case 2:
            return .allocateTransaction(
                try ballot(), try transactionID(), try participants(), replaced: try stamp(),
                fence: try varint())
        case 3: return .report(try ballot(), try id(), try ballot(), try recents())
        case 4, 65:
            return .register(try ballot(), try registration(tellsOfSplits: tag == 65))
        case 5: return .confirm(try ballot(), try id(), try ballot(), question: try varint())
        case 6:
            return .confirmTransaction(
                try ballot(), try transactionID(), try participants(), fence: try varint())
        case 7: return .readQuestion(try ballot(), question: try varint())
        case 8: return .never(try ballot(), try transactionID(), try id(), try id(), try ballot())
        case 9: return .abandon(try ballot(), try transactionID(), try id(), by: try ballot())
        case 10: return .fenced(try ballot(), try id(), try ballot(), fence: try varint())
        case 20: return .opening(try ballot())
        case 21: return .registered(try ballot(), try id(), try ballot(), fence: try varint())
        case 22:
            let e = try ballot(), p: PartitionID = try id(), t = try ballot(), first = try varint()
            var allocations: [Allocation] = []
            for _ in 0..<(try count(atLeast: 3)) { allocations.append(try allocation()) }
            return .allocated(e, p, t, first: first, allocations)
        case 23:
            return .allocatedTransaction(
                try ballot(), try transactionID(), try bool() ? try allocation() : nil)
        case 24:
            return .confirmed(
                try ballot(), try id(), try ballot(), question: try varint(), frontier: try id(),
                compact: try id(), fence: try varint())
        case 25:
            return .confirmedTransaction(
                try ballot(), try transactionID(), frontier: try bool() ? try id() : nil)
        case 26:
            return .readAnswer(
                try ballot(), question: try varint(), frontier: try id(), compact: try id(),
                authVersion: try varint())
        case 27:
            var t = Timeline(
                epoch: try ballot(), frontier: try id(), compactRevision: try id(), floor: try id(),
                tails: [])
            t.authVersion = try varint()
            t.authFence = try varint()
            t.authFenced = try varint()
            for _ in 0..<(try count(atLeast: 3)) {
                t.tails.append(.init(term: try ballot(), slot: try id()))
            }
            return .timeline(t)
        case 28: return .recover(try ballot(), try transactionID(), try id(), try id())
        case 29: return .abort(try ballot(), try transactionID(), try id(), try id())
        case 30: return .transactionVoid(try ballot(), try transactionID(), try id())
        case 31: return .transactionFenced(try ballot(), try transactionID())
        case 40, 66: return .lock(try lockRequest(tellsOfSplits: tag == 66))
        case 41: return .locked(try transactionID(), try id(), try ballot(), try lockedRows())
        case 42: return .died(try transactionID(), try id())
        case 43:
            return .prepare(
                try transactionID(), try id(), try ballot(), participants: try partitions(),
                try effects())
        case 44: return .prepared(try transactionID(), try id())
        case 45: return .refused(try transactionID(), try id())
        case 46: return .release(try transactionID(), try id())
        case 47: return .overtaken(try transactionID(), try id())
        case 48:
            return .executedBefore(try transactionID(), try id(), try bool() ? try id() : nil)
        case 60, 67:
            let token = try varint(), request = try request()
            let within = TimeSpan(nanoseconds: try varint()), fence = try varint()
            var named = try requestTag()
            if tag == 67 { named?.places = try partitions() }
            return .forward(token: token, request, within: within, fence: fence, named)
        case 61: return .forwarded(token: try varint(), try response())
        case 62: return .redirect(token: try varint(), isCertain: try bool())
        case 63: return .cancelForward(token: try varint())
        case 64: return .executed(token: try varint(), try id())
        default: throw DecodingError("region message \(tag)")
        }
    }

    private mutating func requestTag() throws(DecodingError) -> RequestTag? {
        guard try bool() else { return nil }
        var tag = RequestTag(
            name: try name(), attempt: try varint(), mark: try varint(), gate: try ballot())
        for _ in 0..<(try count()) { tag.after.append(try id()) }
        return tag
    }
    private mutating func participants() throws(DecodingError) -> [Participant] {
        var list: [Participant] = []
        for _ in 0..<(try count(atLeast: 5)) {
            list.append(
                Participant(
                    partition: try id(), term: try ballot(), writes: try bool(), lapses: try varint()))
        }
        return list
    }
    private mutating func allocation() throws(DecodingError) -> Allocation {
        Allocation(revision: try id(), stamp: try stamp())
    }
    private mutating func recents() throws(DecodingError) -> [PartitionState.Recent] {
        var list: [PartitionState.Recent] = []
        for _ in 0..<(try count(atLeast: 3)) {
            let revision: Revision = try id(), slot: Slot = try id(), tag = try byte()
            guard let kind = PartitionState.Recent.Kind(rawValue: tag) else {
                throw DecodingError("outcome \(tag)")
            }
            list.append(.init(revision: revision, slot: slot, kind: kind))
        }
        return list
    }
    private mutating func registration(
        tellsOfSplits: Bool
    ) throws(DecodingError) -> Registration {
        var r = Registration(
            partition: try id(), term: try ballot(), sealSlot: try id(), applied: try id(),
            highestRevision: try id(), heardFrontier: try id(), highestStamp: try stamp(),
            recent: try recents(), undecided: [], lapses: 0)
        for _ in 0..<(try count(atLeast: 4)) {
            r.undecided.append(
                .init(
                    transaction: try transactionID(), revision: try id(), participants: try partitions()))
        }
        r.lapses = try varint()
        guard tellsOfSplits else { return r }
        r.newest = try id()
        if try bool() { r.origin = .init(split: try split(), slot: try id(), revision: try id()) }
        return r
    }
    private mutating func keyRanges() throws(DecodingError) -> [KeyRange] {
        var list: [KeyRange] = []
        for _ in 0..<(try count(atLeast: 2)) { list.append(try keyRange()) }
        return list
    }
    private mutating func leases() throws(DecodingError) -> [LeaseID] {
        var list: [LeaseID] = []
        for _ in 0..<(try count()) { list.append(LeaseID(try signed())) }
        return list
    }
    private mutating func lockRequest(
        tellsOfSplits: Bool
    ) throws(DecodingError) -> LockRequest {
        var r = LockRequest(
            transaction: try transactionID(),
            start: StartStamp(micros: try varint(), name: try name()), partition: try id(),
            footprint: Footprint(), plan: ReadPlan(), leasesEnding: [], cursorOf: nil)
        r.footprint.reads = try keyRanges()
        r.footprint.writes = try keyRanges()
        r.footprint.sharedLeases = try leases()
        r.footprint.exclusiveLeases = try leases()
        for _ in 0..<(try count()) { r.plan.keys.append(try bytes()) }
        r.plan.ranges = try keyRanges()
        for _ in 0..<(try count(atLeast: 8)) { r.plan.historic.append(try rangeQuery()) }
        r.leasesEnding = try leases()
        r.onlyExpired = try bool()
        if try bool() { r.cursorOf = try id() }
        r.tag = try requestTag()
        if tellsOfSplits { r.newest = try id() }
        return r
    }
    private mutating func lockedRows() throws(DecodingError) -> LockedRows {
        var l = LockedRows()
        l.rows = try rows()
        for _ in 0..<(try count(atLeast: 2)) {
            switch try byte() {
            case 0: l.historic.append(.result(try rangeResult()))
            case 1:
                let tag = try byte()
                guard let error = RequestError(rawValue: tag) else { throw DecodingError("error \(tag)") }
                l.historic.append(.failed(error))
            case let other: throw DecodingError("historic \(other)")
            }
        }
        l.leasesAlive = try leases()
        l.leasesKnown = try leases()
        for _ in 0..<(try count(atLeast: 2)) {
            l.leaseSpread.append(LeaseSpread(lease: LeaseID(try signed()), partition: try id()))
        }
        if try bool() { l.cursor = try id() }
        l.lapses = try varint()
        return l
    }
}
