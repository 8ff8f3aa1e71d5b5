#!/bin/sh
# Writes Sources/EtcdAPI/Generated from proto/. Needs protoc, and protoc-gen-swift of the swift-protobuf
# version in Package.swift (build it there: swift build --product protoc-gen-swift), on the PATH or
# named by PROTOC_GEN_SWIFT.
set -eu
cd "$(dirname "$0")/.."
generated=Sources/EtcdAPI/Generated
plugin=${PROTOC_GEN_SWIFT:-$(command -v protoc-gen-swift)}
rm -f "$generated"/*.pb.swift
protoc --plugin=protoc-gen-swift="$plugin" --proto_path=proto \
    --swift_opt=Visibility=Package --swift_opt=UseAccessLevelOnImports=true \
    --swift_out="$generated" proto/*.proto

# The files' descriptors, for server reflection.
protoc --proto_path=proto --include_imports --descriptor_set_out=/dev/stdout proto/*.proto |
    base64 -w 96 | awk '
        BEGIN {
            print "/// A FileDescriptorSet of proto/*.proto in base64. Made by scripts/generate-protos.sh."
            print "package enum ProtoDescriptors {"
            print "    package static let base64: StaticString = \"\"\""
        }
        NR > 1 { print "        " line "\\" }
        { line = $0 }
        END { print "        " line; print "        \"\"\""; print "}" }' >"$generated/ProtoDescriptors.swift"
