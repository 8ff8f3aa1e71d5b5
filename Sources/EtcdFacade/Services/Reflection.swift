import EtcdAPI
import Foundation
import Primitives
import SwiftProtobuf

/// gRPC server reflection, versions 1 and 1alpha (whose messages are alike): grpcurl and its kin learn
/// etcd's services from the server. etcd itself has none.
extension Facade {
    func onReflection(_ call: CallReference, _ message: Bytes) throws(CallFailure) {
        let request: Grpc_Reflection_V1_ServerReflectionRequest = try parsing(message)
        guard output.bufferedBytes(of: call) <= limits.bufferedBytesMax else {
            throw EtcdError.tooManyRequests.failure
        }
        let response = ProtoRegistry.shared.answer(request)
        guard let bytes: [UInt8] = try? response.serializedBytes() else {
            throw CallFailure(status: .internal, text: "polder: an answer that cannot be encoded")
        }
        sendOnStream(bytes, to: call, .reflection)
    }
}

/// The descriptors of proto/*.proto, by file and by symbol.
struct ProtoRegistry: Sendable {
    static let shared = ProtoRegistry(
        base64: ProtoDescriptors.base64.withUTF8Buffer { Array($0) })

    private struct File {
        let bytes: [UInt8]
        let imports: [String]
    }
    private var files: [String: File] = [:]
    /// Full names of services, methods, messages, fields, enums and their values, to files.
    private var fileOfSymbol: [String: String] = [:]
    private(set) var services: [String] = []

    init(base64 text: [UInt8]) {
        guard let bytes = decodeBase64(text),
            let set = try? Google_Protobuf_FileDescriptorSet(serializedBytes: bytes)
        else { fatalError("invariant broken: the committed descriptors are not readable") }
        for file in set.file {
            guard let bytes: [UInt8] = try? file.serializedBytes() else { continue }
            files[file.name] = File(bytes: bytes, imports: file.dependency)
            let scope = file.package.isEmpty ? "" : file.package + "."
            for service in file.service {
                services.append(scope + service.name)
                note(scope + service.name, file)
                for method in service.method { note(scope + service.name + "." + method.name, file) }
            }
            for message in file.messageType { note(message, in: scope, file) }
            for type in file.enumType { note(type, in: scope, file) }
        }
        services.sort()
    }

    private mutating func note(_ symbol: String, _ file: Google_Protobuf_FileDescriptorProto) {
        fileOfSymbol[symbol] = file.name
    }

    private mutating func note(
        _ message: Google_Protobuf_DescriptorProto, in scope: String,
        _ file: Google_Protobuf_FileDescriptorProto
    ) {
        let name = scope + message.name
        note(name, file)
        for field in message.field { note(name + "." + field.name, file) }
        for choice in message.oneofDecl { note(name + "." + choice.name, file) }
        for nested in message.nestedType { note(nested, in: name + ".", file) }
        for type in message.enumType { note(type, in: name + ".", file) }
    }

    /// An enum's values are named beside it, not below it.
    private mutating func note(
        _ type: Google_Protobuf_EnumDescriptorProto, in scope: String,
        _ file: Google_Protobuf_FileDescriptorProto
    ) {
        note(scope + type.name, file)
        for value in type.value { note(scope + value.name, file) }
    }

    // MARK: Answers

    func answer(
        _ request: Grpc_Reflection_V1_ServerReflectionRequest
    ) -> Grpc_Reflection_V1_ServerReflectionResponse {
        var response = Grpc_Reflection_V1_ServerReflectionResponse()
        response.validHost = request.host
        response.originalRequest = request
        switch request.messageRequest {
        case .fileByFilename(let name):
            response.messageResponse = descriptors(of: files[name] == nil ? nil : name)
        case .fileContainingSymbol(let symbol):
            response.messageResponse = descriptors(of: fileOfSymbol[symbol])
        case .fileContainingExtension, .allExtensionNumbersOfType:
            // proto3 has no extensions.
            response.messageResponse = Self.notFound("extension not found")
        case .listServices:
            response.messageResponse = .listServicesResponse(
                .with { list in
                    list.service = services.map { name in .with { $0.name = name } }
                })
        case nil:
            response.messageResponse = .errorResponse(
                .with {
                    $0.errorCode = Int32(GRPCStatus.invalidArgument.rawValue)
                    $0.errorMessage = "the request asks for nothing"
                })
        }
        return response
    }

    /// The file, then everything that it imports, each once.
    private func descriptors(
        of name: String?
    ) -> Grpc_Reflection_V1_ServerReflectionResponse.OneOf_MessageResponse {
        guard let name else { return Self.notFound("symbol or file not found") }
        var names = [name]
        var next = 0
        while next < names.count {
            for other in files[names[next]]?.imports ?? [] where !names.contains(other) {
                names.append(other)
            }
            next += 1
        }
        var answer = Grpc_Reflection_V1_FileDescriptorResponse()
        for name in names {
            guard let file = files[name] else { continue }
            answer.fileDescriptorProto.append(.init(file.bytes))
        }
        return .fileDescriptorResponse(answer)
    }

    private static func notFound(
        _ text: String
    ) -> Grpc_Reflection_V1_ServerReflectionResponse.OneOf_MessageResponse {
        .errorResponse(
            .with {
                $0.errorCode = Int32(GRPCStatus.notFound.rawValue)
                $0.errorMessage = text
            })
    }
}

/// Standard base64, padded. Nil: it is something else.
func decodeBase64(_ text: [UInt8]) -> [UInt8]? {
    var out: [UInt8] = []
    out.reserveCapacity(text.count / 4 * 3)
    var word: UInt32 = 0
    var digits = 0
    for byte in text {
        let value: UInt32
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): value = UInt32(byte) - 65
        case UInt8(ascii: "a")...UInt8(ascii: "z"): value = UInt32(byte) - 97 + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): value = UInt32(byte) - 48 + 52
        case UInt8(ascii: "+"): value = 62
        case UInt8(ascii: "/"): value = 63
        case UInt8(ascii: "="): continue
        default: return nil
        }
        word = word << 6 | value
        digits += 1
        if digits % 4 == 0 {
            out += [UInt8(truncatingIfNeeded: word >> 16), UInt8(truncatingIfNeeded: word >> 8),
                UInt8(truncatingIfNeeded: word)]
            word = 0
        }
    }
    switch digits % 4 {
    case 0: break
    case 2: out.append(UInt8(truncatingIfNeeded: word >> 4))
    case 3:
        out += [UInt8(truncatingIfNeeded: word >> 10), UInt8(truncatingIfNeeded: word >> 2)]
    default: return nil
    }
    return out
}
