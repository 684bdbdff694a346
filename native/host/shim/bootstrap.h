// What containerd tells `start`, and how each of its versions wants to be answered.
#pragma once

#include <string>
#include <string_view>

namespace caisson::shim {

// 1.6 knows a bare address, 1.7 to 2.2 may be told the protocol besides, and from 2.3 on the caller says so on standard
// input and may be told version 3, where `start` is run once per pod.
enum class Dialect { kAddress, kVersion2, kVersion3 };

// `input` is all of standard input: containerd.runtime.bootstrap.v1.BootstrapParams, a google.protobuf.Any, or nothing.
// An Any can pass for the other message, so id and namespace must be the ones of the command line.
Dialect ChooseDialect(std::string_view input, std::string_view id, std::string_view ns, bool has_grpc_address);

// `path` of the socket.
std::string Bootstrap(Dialect dialect, const std::string& path);

// A varint as protobuf writes it.
void AppendVarint(std::string& bytes, uint64_t value);

}  // namespace caisson::shim
