// What a VMM sends, header and payload, read as every kind of message: what is accepted is what the header promises.
#include "vhost_user_message.h"

#include "../require.h"

using namespace caisson::pod;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  if (bytes.size() >= kMessageHeaderBytes) {
    const auto header = ParseMessageHeader(bytes.first<kMessageHeaderBytes>());
    REQUIRE(!header || header->payload_bytes <= kMaxMessagePayloadBytes);
    if (header) {
      // The reply to it is no request, or two sides would answer each other for ever.
      const auto reply = EncodeReply(header->request, bytes.subspan(kMessageHeaderBytes));
      REQUIRE(!ParseMessageHeader(Bytes(reply).first<kMessageHeaderBytes>()));
    }
    bytes = bytes.subspan(kMessageHeaderBytes);
  }
  if (const auto table = ParseMemoryTable(bytes)) REQUIRE(!table->empty() && table->size() <= kMaxMessageFds);
  if (const auto range = ParseConfigRange(bytes)) REQUIRE(range->size <= bytes.size());
  REQUIRE(ParseVringAddress(bytes).has_value() == (bytes.size() == 40));
  REQUIRE(ParseVringState(bytes).has_value() == (bytes.size() == 8));
  if (ParseVringFd(bytes)) REQUIRE(ParseU64(bytes).has_value());
  return 0;
}
