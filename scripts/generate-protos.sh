#!/bin/sh
# Writes Sources/EtcdAPI/Generated from proto/. Needs protoc, and protoc-gen-swift of the swift-protobuf
# version in Package.swift (build it there: swift build --product protoc-gen-swift), on the PATH or
# named by PROTOC_GEN_SWIFT.
set -eu
cd "$(dirname "$0")/.."
plugin=${PROTOC_GEN_SWIFT:-$(command -v protoc-gen-swift)}
rm -f Sources/EtcdAPI/Generated/*.pb.swift
protoc --plugin=protoc-gen-swift="$plugin" --proto_path=proto \
    --swift_opt=Visibility=Package --swift_opt=UseAccessLevelOnImports=true \
    --swift_out=Sources/EtcdAPI/Generated proto/*.proto
