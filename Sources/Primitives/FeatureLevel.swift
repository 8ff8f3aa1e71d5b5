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
    /// Of this build.
    public static let own: UInt16 = 3
}
