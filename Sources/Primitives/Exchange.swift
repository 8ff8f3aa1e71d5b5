extension Array {
    /// Takes all elements out and leaves the storage of `spare` in their place: for lists that are filled
    /// and emptied several times a turn, by those who fill them again while they read. (`removeAll` of a
    /// list that somebody still reads allocates its whole capacity anew.) Give the storage back with
    /// `recycle`.
    @inlinable public mutating func exchange(for spare: inout [Element]) -> [Element] {
        var taken: [Element] = []
        swap(&taken, &spare)
        swap(&taken, &self)
        return taken
    }

    /// Keeps the storage of a list that has been read, for the next `exchange`.
    @inlinable public mutating func recycle(_ read: consuming [Element]) {
        read.removeAll(keepingCapacity: true)
        if read.capacity > capacity { self = read }
    }
}
