#include "bootstrap.h"

#include <cstdint>

namespace caisson::shim {
namespace {

bool TakeVarint(std::string_view& bytes, uint64_t& value) {
  value = 0;
  for (unsigned shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes[0]);
    bytes.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

// Fields 1 and 2 of a message when both are byte strings; false when the bytes are no message.
bool FirstTwoTexts(std::string_view bytes, std::string_view texts[2]) {
  while (!bytes.empty()) {
    uint64_t tag = 0, number = 0;
    if (!TakeVarint(bytes, tag)) return false;
    switch (tag & 7) {
      case 0:
        if (!TakeVarint(bytes, number)) return false;
        break;
      case 2:
        if (!TakeVarint(bytes, number) || number > bytes.size()) return false;
        if (const uint64_t field = tag >> 3; field == 1 || field == 2) texts[field - 1] = bytes.substr(0, number);
        bytes.remove_prefix(number);
        break;
      case 1:
      case 5: {
        const size_t width = (tag & 7) == 1 ? 8 : 4;
        if (bytes.size() < width) return false;
        bytes.remove_prefix(width);
        break;
      }
      default:
        return false;
    }
  }
  return true;
}

}  // namespace

void AppendVarint(std::string& bytes, uint64_t value) {
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  bytes += static_cast<char>(value);
}

Dialect ChooseDialect(std::string_view input, std::string_view id, std::string_view ns, bool has_grpc_address) {
  std::string_view texts[2];
  if (!input.empty() && FirstTwoTexts(input, texts) && texts[0] == id && texts[1] == ns) return Dialect::kVersion3;
  return has_grpc_address ? Dialect::kVersion2 : Dialect::kAddress;
}

std::string Bootstrap(Dialect dialect, const std::string& path) {
  const std::string address = "unix://" + path;
  if (dialect == Dialect::kAddress) return address;
  const char* version = dialect == Dialect::kVersion3 ? "3" : "2";
  return std::string(R"({"version":)") + version + R"(,"address":")" + address + R"(","protocol":"ttrpc"})";
}

}  // namespace caisson::shim
