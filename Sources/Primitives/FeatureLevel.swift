/// What a build can read and do, as one number. Everything that builds before it could not stand (a new
/// kind of log entry or message, a new layout of a record) belongs to the level that brought it, and is
/// neither written nor sent before the whole region has that level (`RegionMembers.level`).
public enum FeatureLevel {
    /// Everything up to the first release.
    public static let first: UInt16 = 1
    /// Partitions can be split: entries 65 to 67, requests and answers 65, messages between nodes 65
    /// to 67, records "r" and "x", snapshots' offers with their hashes.
    public static let splits: UInt16 = 2
    /// Not every member votes in every group: version 2 of the list of members, questions 9 and 10
    /// about it.
    public static let placement: UInt16 = 3
    /// Rows may lie with some members only: version 3 of the list of members, question 4 about placement,
    /// frames 19 between hosts.
    public static let spread: UInt16 = 4
    /// Of this build.
    public static let own: UInt16 = 4
}
