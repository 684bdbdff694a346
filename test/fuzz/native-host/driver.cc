// fuzz-native-host ROUNDS [SEED]: drives LLVMFuzzerTestOneInput with generated input where libFuzzer is not at hand.
// Half of the bytes are small numbers, and seeds look almost right, since pure noise is refused at the first field.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Random = std::mt19937_64;

std::vector<uint8_t> Noise(Random& random, size_t size) {
  std::vector<uint8_t> bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() % 2 == 0 ? random() % 4 : random());
  return bytes;
}

void AppendLine(Random& random, std::vector<uint8_t>& input) {
  static constexpr std::string_view kParts[] = {"CONNECT ", "connect ", "Connect ", " ", "0", "17", "4294967295", "\n"};
  for (size_t parts = random() % 6; parts > 0; --parts) {
    const std::string_view part = kParts[random() % std::size(kParts)];
    input.insert(input.end(), part.begin(), part.end());
  }
}

// Descriptors that mostly point into memory and at each other, and an avail ring that offers them.
void AppendQueue(Random& random, std::vector<uint8_t>& input) {
  std::vector<uint8_t> memory = Noise(random, 16 * 1024);
  for (size_t index = 0; index < 64; ++index) {
    if (random() % 8 == 0) continue;
    const uint64_t address = 0x4000 + random() % (16 * 1024);
    const auto length = static_cast<uint32_t>(16 * (random() % 32));
    const auto flags = static_cast<uint16_t>(random() % 5);
    const auto next = static_cast<uint16_t>(random() % 8);
    uint8_t* at = memory.data() + 16 * index;
    if (index >= 32) at += 512;  // behind the avail ring, where indirect tables may point
    std::memcpy(at, &address, 8);
    std::memcpy(at + 8, &length, 4);
    std::memcpy(at + 12, &flags, 2);
    std::memcpy(at + 14, &next, 2);
  }
  const auto index = static_cast<uint16_t>(memory[16 * 1024 - 3] + random() % 8);
  std::memcpy(memory.data() + 514, &index, 2);
  for (size_t entry = 0; entry < 32; ++entry) {
    const auto head = static_cast<uint16_t>(random() % 8);
    std::memcpy(memory.data() + 516 + 2 * entry, &head, 2);
  }
  input.insert(input.end(), memory.begin(), memory.end());
}

}  // namespace

int main(int argc, char** argv) {
  const unsigned long rounds = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 10'000;
  Random random(argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 1);
  for (unsigned long round = 0; round < rounds; ++round) {
    const auto part = static_cast<uint8_t>(random() % 5);
    std::vector<uint8_t> input = {part};
    if (part == 1 && random() % 4 != 0) AppendLine(random, input);
    if (part == 4) AppendQueue(random, input);
    const std::vector<uint8_t> noise = Noise(random, part == 4 ? 0 : random() % 300);
    input.insert(input.end(), noise.begin(), noise.end());
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%lu inputs\n", rounds);
  return 0;
}
