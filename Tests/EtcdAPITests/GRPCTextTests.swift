import Primitives
import Testing

@testable import EtcdAPI

@Suite struct GRPCTextTests {
    @Test func `messages survive percent encoding`() {
        for text in ["", "plain", "100%", "etcdserver: é\n", "%41"] {
            #expect(GRPCText.decodeMessage(GRPCText.encodeMessage(text)) == text)
        }
        #expect(GRPCText.encodeMessage("a%b\n") == "a%25b%0A")
        #expect(GRPCText.decodeMessage("50%") == "50%")
    }

    @Test func `timeouts are read in every unit`() {
        func read(_ text: String) -> TimeSpan? { Array(text.utf8).withUnsafeBytes(GRPCText.timeout) }
        #expect(read("5S") == .seconds(5))
        #expect(read("2M") == .seconds(120))
        #expect(read("1H") == .seconds(3600))
        #expect(read("99999999n") == TimeSpan(nanoseconds: 99_999_999))
        #expect(read("7u") == .microseconds(7))
        #expect(read("S") == nil && read("5") == nil && read("-1S") == nil && read("123456789S") == nil)
        for span in [TimeSpan.seconds(5), .milliseconds(1), TimeSpan(nanoseconds: 1_234_567_891_234)] {
            let back = read(GRPCText.timeout(of: span))
            #expect(back ?? .zero >= span && back ?? .zero <= span * 2)
        }
    }

    @Test func `messages are found wherever the stream is cut`() throws {
        let messages: [Bytes] = ["", "a", "bc", Bytes([UInt8](repeating: 9, count: 40)), ""]
        var stream: [UInt8] = []
        for message in messages { stream += [0, 0, 0, 0, UInt8(message.count)] + message.array }
        for first in 0...stream.count {
            for second in stride(from: first, through: stream.count, by: 3) {
                var reader = MessageReader()
                var found: [Bytes] = []
                for part in [stream[..<first], stream[first..<second], stream[second...]] {
                    try part.withUnsafeBytes { raw in
                        var offset = 0
                        while let next = try reader.next(raw, &offset, limit: 40) { found.append(next) }
                        #expect(offset == raw.count)
                    }
                }
                #expect(found == messages)
                #expect(reader.isEmpty)
            }
        }
    }

    @Test func `the wheel gives each deadline once, never early, at most two ticks late`() {
        var random = SplitMix(seed: 7)
        var now: UInt64 = 123_456_789
        var wheel = DeadlineWheel(now: now)
        var model: [Int: UInt64] = [:]
        let tick = DeadlineWheel.tickNanoseconds
        for _ in 0..<20_000 {
            let slot = Int(random.next() % 200)
            switch random.next() % 4 {
            case 0, 1:
                let far = random.next() % 8 == 0 ? 60_000_000_000 : 500_000_000 as UInt64
                let deadline = now + random.next() % far
                wheel.set(slot, deadline: deadline)
                model[slot] = deadline
            case 2:
                wheel.clear(slot)
                model[slot] = nil
            default:
                now += random.next() % (3 * tick)
                if random.next() % 500 == 0 { now += 20_000_000_000 }
                var expired: [Int] = []
                wheel.expire(now: now, into: &expired)
                for slot in expired {
                    #expect(model[slot].map { $0 <= now } == true)
                    model[slot] = nil
                }
                #expect(model.values.allSatisfy { $0 + 2 * tick > now })
                #expect(wheel.nextWake ?? .max > now)
            }
            #expect(wheel.count == model.count)
        }
    }
}
