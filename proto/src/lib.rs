//! The protocol between nodes: code generated from `proto/peer.proto`, and nothing else.

#![expect(missing_docs, reason = "generated code; the .proto file is documented")]

tonic::include_proto!("watchword.peer.v1");
