import EtcdAPI
import Primitives
import SwiftProtobuf
import Testing

@testable import EtcdFacade

@Suite struct ReflectionTests {
    private typealias Request = Grpc_Reflection_V1_ServerReflectionRequest
    private typealias Response = Grpc_Reflection_V1_ServerReflectionResponse

    private func ask(_ client: Client, _ call: CallReference, _ change: (inout Request) -> Void)
        throws -> Response
    {
        client.send(Request.with(change), to: call)
        let answers = client.output.take(call)
        return try Response(serializedBytes: try #require(answers.first))
    }

    @Test(arguments: [RPCMethod.reflection, .reflectionAlpha])
    func `services, files and symbols are found`(method: RPCMethod) throws {
        let client = Client()
        let call = client.open(method)
        let list = try ask(client, call) { $0.listServices = "" }
        let names = list.listServicesResponse.service.map(\.name)
        #expect(names.contains("etcdserverpb.KV") && names.contains("v3lockpb.Lock"))
        #expect(names.contains("grpc.reflection.v1alpha.ServerReflection"))
        #expect(names == names.sorted())

        for symbol in [
            "etcdserverpb.KV", "etcdserverpb.KV.Range", "etcdserverpb.RangeRequest",
            "etcdserverpb.RangeRequest.SortOrder", "etcdserverpb.RangeRequest.DESCEND",
            "etcdserverpb.RangeRequest.range_end",
        ] {
            let answer = try ask(client, call) { $0.fileContainingSymbol = symbol }
            let files = try answer.fileDescriptorResponse.fileDescriptorProto.map {
                try Google_Protobuf_FileDescriptorProto(serializedBytes: $0)
            }
            #expect(files.first?.name == "rpc.proto", "\(symbol)")
            // With everything that it needs, once.
            let sent = Set(files.map(\.name))
            #expect(sent.count == files.count)
            #expect(files.allSatisfy { $0.dependency.allSatisfy(sent.contains) })
        }
        let file = try ask(client, call) { $0.fileByFilename = "election.proto" }
        #expect(file.fileDescriptorResponse.fileDescriptorProto.count == 4)
        #expect(file.originalRequest.fileByFilename == "election.proto")

        let unknown = try ask(client, call) { $0.fileContainingSymbol = "no.Such" }
        #expect(unknown.errorResponse.errorCode == 5)
        client.facade.onHalfClose(call)
        #expect(client.output.outcomes[call]?.status == .ok)
    }

    @Test func `every method that is served is described`() {
        for method in RPCMethod.allCases {
            let symbol = "\(method.path)".dropFirst().replacing("/", with: ".")
            let answer = ProtoRegistry.shared.answer(
                .with { $0.fileContainingSymbol = String(symbol) })
            #expect(!answer.fileDescriptorResponse.fileDescriptorProto.isEmpty, "\(symbol)")
        }
    }
}
