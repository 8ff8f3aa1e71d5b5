import DequeModule
package import Primitives

/// What a leader has evaluated but the store does not surely show to a read yet: the newest pending
/// row of each key. Evaluation lays it on top of what was read (architecture.md "Reads are inputs").
///
/// Correct by one comparison: a read at applied slot `a` may be used exactly if `a >= completeFrom`,
/// because every row of a later slot is still here (protocol-rules.md S20).
package struct Overlay: Sendable {
    package struct Cell: Sendable {
        var row: Row
        /// The item or latch that wrote it.
        var writer: UInt64
        /// Which of this leadership's proposals writes it; 0 until it is proposed.
        var number: UInt64
        /// Known once it is decided.
        var slot: Slot

        /// The rest is as it was evaluated.
        mutating func settle(as settled: Row, number: UInt64) {
            row.modRevision = settled.modRevision
            row.createRevision = settled.createRevision
            row.origin = settled.origin
            self.number = number
        }
    }

    private var cells: [Bytes: Cell] = [:]
    private var decided: Deque<(slot: Slot, key: Bytes)> = []
    package private(set) var completeFrom = Slot.zero

    package init(completeFrom: Slot = .zero) { self.completeFrom = completeFrom }

    package subscript(key: Bytes) -> Cell? { cells[key] }
    package var isEmpty: Bool { cells.isEmpty }
    package var count: Int { cells.count }

    package mutating func put(_ row: Row, writer: UInt64, number: UInt64 = 0) {
        cells[row.key] = Cell(row: row, writer: writer, number: number, slot: .zero)
    }

    /// The rows got their revision and place in the log.
    package mutating func settle(_ rows: [Row], writer: UInt64, number: UInt64) {
        // A later writer of the key stays on top.
        for k in rows.indices {
            guard let i = cells.index(forKey: rows[k].key), cells.values[i].writer == writer,
                cells.values[i].number == 0
            else { continue }
            cells.values[i].settle(as: rows[k], number: number)
        }
    }

    package mutating func decide(_ rows: [Row], number: UInt64, slot: Slot) {
        for k in rows.indices {
            decided.append((slot, rows[k].key))
            if let i = cells.index(forKey: rows[k].key), cells.values[i].number == number {
                cells.values[i].slot = slot
            }
        }
    }

    /// The rows of `revision` never happened. Reads that may have seen them are read again.
    package mutating func abort(_ keys: [Bytes], revision: Revision, at slot: Slot) {
        for key in keys where cells[key]?.row.modRevision == revision { cells[key] = nil }
        completeFrom = max(completeFrom, slot)
    }

    /// No read in flight is older than `slot`: what was decided through it is in every answer.
    package mutating func prune(through slot: Slot) {
        while let first = decided.first, first.slot <= slot {
            decided.removeFirst()
            if let i = cells.index(forKey: first.key), cells.values[i].slot == first.slot {
                cells.remove(at: i)
            }
            completeFrom = max(completeFrom, first.slot)
        }
    }

    /// Lays the pending rows that `plan` names on `rows`. Also tells the highest proposal whose row was
    /// used, and whether a row was used whose revision is not known yet.
    package func lay(
        on rows: [Row], plan: ReadPlan
    ) -> (table: RowTable, number: UInt64, hasUnknown: Bool) {
        var table = RowTable(rows)
        if cells.isEmpty { return (table, 0, false) }
        var number: UInt64 = 0
        var hasUnknown = false
        func use(_ cell: Cell, _ table: inout RowTable) {
            table.set(cell.row)
            if cell.slot == .zero { number = max(number, cell.number) }
            if cell.row.modRevision == .pending { hasUnknown = true }
        }
        for key in plan.keys { if let cell = cells[key] { use(cell, &table) } }
        if !plan.ranges.isEmpty {
            for (key, cell) in cells where plan.ranges.contains(where: { $0.contains(key) }) {
                use(cell, &table)
            }
        }
        return (table, number, hasUnknown)
    }
}
