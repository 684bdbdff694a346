#include "frames.h"

#include "bootstrap.h"

namespace caisson::shim {
namespace {

constexpr size_t kHeaderBytes = 10;
constexpr uint32_t kMaxDataBytes = 4 * 1024 * 1024;
constexpr std::string_view kKey = "caisson-request";

uint32_t ReadU32(std::string_view bytes) {
  uint32_t value = 0;
  for (size_t index = 0; index < 4; ++index) value = value << 8 | static_cast<uint8_t>(bytes[index]);
  return value;
}

void AppendBytes(std::string& message, uint8_t field, std::string_view bytes) {
  message += static_cast<char>(field << 3 | 2);
  AppendVarint(message, bytes.size());
  message += bytes;
}

}  // namespace

FrameCutter::Result FrameCutter::Next(Frame& frame) {
  if (taken_ > 0) {
    pending_.erase(0, taken_);
    taken_ = 0;
  }
  if (pending_.size() < kHeaderBytes) return Result::kIncomplete;
  const uint32_t length = ReadU32(pending_);
  if (length > kMaxDataBytes) return Result::kTooLarge;
  if (pending_.size() < kHeaderBytes + length) return Result::kIncomplete;
  const std::string_view bytes = pending_;
  frame = {.stream = ReadU32(bytes.substr(4)), .type = static_cast<uint8_t>(bytes[8]), .bytes = bytes.substr(0, kHeaderBytes + length)};
  taken_ = kHeaderBytes + length;
  return Result::kFrame;
}

std::string MarkRequest(std::string_view frame, std::string_view mark) {
  std::string pair;
  AppendBytes(pair, 1, kKey);
  AppendBytes(pair, 2, mark);
  std::string marked(frame);
  AppendBytes(marked, 5, pair);
  const auto length = static_cast<uint32_t>(marked.size() - kHeaderBytes);
  for (size_t index = 0; index < 4; ++index) marked[index] = static_cast<char>(length >> (24 - 8 * index));
  return marked;
}

}  // namespace caisson::shim
