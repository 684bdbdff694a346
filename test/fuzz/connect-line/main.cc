// The first line of a program of the host: what follows it does not change its meaning, and it never grows.
#include "connect_line.h"

#include <string_view>

#include "../require.h"

using namespace caisson::pod;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const ConnectLine line = ParseConnectLine(text);
  if (line.status == ConnectLine::Status::kIncomplete) REQUIRE(size < kMaxConnectLineBytes);
  if (line.status != ConnectLine::Status::kComplete) return 0;
  REQUIRE(line.bytes <= kMaxConnectLineBytes && line.bytes <= size && text[line.bytes - 1] == '\n');
  REQUIRE(ParseConnectLine(text.substr(0, line.bytes)).port == line.port);
  REQUIRE(ParseConnectLine(text.substr(0, line.bytes - 1)).status == ConnectLine::Status::kIncomplete);
  return 0;
}
