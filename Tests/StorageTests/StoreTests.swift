import Testing

@testable import Storage

@Suite struct StoreTests {}
