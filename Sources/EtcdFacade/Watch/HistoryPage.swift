import Primitives

/// A stretch of history that was read once for all who come by: what one of them has not been sent yet, the next turn
/// needs. Its rows are the events of its batch, so that they are encoded once, too.
struct HistoryPage {
    /// All changes of `from ... through` are in it; none yet if `through` is before `from`.
    let from: Revision
    private(set) var through: Revision
    /// Keys and values.
    private(set) var bytes = 0
    var batch = EventBatch()
    private var knows: [Bool] = []

    init(from: Revision) {
        self.from = from
        through = from.previous
    }

    var isEmpty: Bool { batch.isEmpty }
    var rowsCount: Int { batch.rows.count }
    func row(_ index: Int) -> Row { batch.rows[index] }

    /// What follows behind `through`.
    mutating func append(_ more: (changes: [RevisionChanges], through: Revision)) {
        for change in more.changes {
            for row in change.rows {
                bytes += row.key.count + row.value.count
                batch.append(row, previous: nil)
                knows.append(false)
            }
        }
        through = max(through, more.through)
    }

    /// The first row of `from` or later.
    func firstRow(from: Revision) -> Int {
        batch.rows.firstIndex { $0.modRevision >= from } ?? batch.rows.count
    }

    /// Whether the batch has the row's previous version, or knows that there is none.
    func knowsPrevious(_ index: Int) -> Bool { knows[index] }

    mutating func learnPrevious(_ before: Row?, of index: Int) {
        knows[index] = true
        batch.setPrevious(before, of: index)
    }
}
