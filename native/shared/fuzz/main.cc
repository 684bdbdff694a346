// layer-fuzz SEED ROUNDS FILE...: mutates the files and drives decompressor and tar scanner with the results, under the
// address and undefined-behaviour sanitizers. Each input is read twice, in different portions: both must agree.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "../decompressor.h"
#include "../tar.h"

namespace {

using caisson::Inflated;
using caisson::TarReader;
using Bytes = std::vector<uint8_t>;

// xorshift64*, so that a seed names a run on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2 + 1) {}
  uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 2685821657736338717ULL;
  }
  size_t Below(size_t limit) { return limit == 0 ? 0 : static_cast<size_t>(Next() % limit); }

 private:
  uint64_t state_;
};

Bytes Mutate(Bytes bytes, Random& random) {
  const size_t changes = 1 + random.Below(4);
  for (size_t i = 0; i < changes && !bytes.empty(); i++) {
    const size_t at = random.Below(bytes.size());
    switch (random.Below(6)) {
      case 0:
        bytes[at] ^= static_cast<uint8_t>(1u << random.Below(8));
        break;
      case 1:
        bytes[at] = static_cast<uint8_t>(random.Next());
        break;
      case 2:
        bytes.resize(at);
        break;
      case 3: {
        // A run of one value: long digits, zero blocks, missing terminators.
        const size_t end = std::min(bytes.size(), at + random.Below(600));
        std::fill(bytes.begin() + static_cast<long>(at), bytes.begin() + static_cast<long>(end), "0\0 9\xff/"[random.Below(6)]);
        break;
      }
      case 4: {
        const size_t from = random.Below(bytes.size()) / 512 * 512;
        const size_t length = std::min<size_t>(512, bytes.size() - from);
        const Bytes copy(bytes.begin() + static_cast<long>(from), bytes.begin() + static_cast<long>(from + length));
        bytes.insert(bytes.begin() + static_cast<long>(at / 512 * 512), copy.begin(), copy.end());
        break;
      }
      default:
        bytes.insert(bytes.begin() + static_cast<long>(at), static_cast<uint8_t>(random.Next()));
    }
  }
  return bytes;
}

// Most mutations break a header's checksum and would be seen no further.
void RepairChecksums(Bytes& tar) {
  for (size_t at = 0; at + 512 <= tar.size(); at += 512) {
    if (std::memcmp(tar.data() + at + 257, "ustar", 5) != 0) continue;
    uint8_t* header = tar.data() + at;
    std::memset(header + 148, ' ', 8);
    unsigned sum = 0;
    for (size_t i = 0; i < 512; i++) sum += header[i];
    char text[8];
    std::snprintf(text, sizeof text, "%06o", sum);
    std::memcpy(header + 148, text, 7);
  }
}

struct Verdict {
  int state = 0;
  size_t produced = 0;
  std::string problem;
  std::string entry;
  std::vector<std::string> entries;
  Bytes appended;
  bool operator==(const Verdict&) const = default;
};

Verdict Failure(int state) {
  Verdict verdict;
  verdict.state = state;
  return verdict;
}

Verdict Read(const Bytes& input, const char* format, Random& random) {
  constexpr size_t kMaxOutput = 8 * 1024 * 1024;
  Verdict verdict;
  const auto decompressor = caisson::MakeDecompressor(format);
  TarReader reader({[&verdict](const caisson::LayerEntry& entry) {
                      verdict.entries.push_back(entry.path + "\0" + entry.link + std::to_string(entry.size));
                      return true;
                    },
                    [&verdict](const uint8_t* block) {
                      verdict.appended.insert(verdict.appended.end(), block, block + 512);
                      return true;
                    }});
  Bytes held;
  for (size_t at = 0; at < input.size();) {
    // An allocation of its own, so that a read beyond it is seen.
    const size_t length = std::min(input.size() - at, 1 + random.Below(5000));
    const Bytes portion(input.begin() + static_cast<long>(at), input.begin() + static_cast<long>(at + length));
    at += length;
    const uint8_t* next = portion.data();
    size_t left = portion.size();
    for (;;) {
      Bytes output(1 + random.Below(20000));
      size_t produced = 0;
      const Inflated state = decompressor->Push(next, left, output.data(), output.size(), &produced);
      if (state != Inflated::kNeedInput && state != Inflated::kOutputFull) {
        // How far output got before an error depends on the portions; that there is one does not.
        return Failure(static_cast<int>(state));
      }
      verdict.produced += produced;
      if (verdict.produced > kMaxOutput) return Failure(-1);
      held.insert(held.end(), output.begin(), output.begin() + static_cast<long>(produced));
      const size_t blocks = held.size() / 512;
      const Bytes whole(held.begin(), held.begin() + static_cast<long>(blocks * 512));
      reader.Blocks(whole.data(), blocks);
      held.erase(held.begin(), held.begin() + static_cast<long>(blocks * 512));
      if (state == Inflated::kNeedInput) break;
    }
  }
  verdict.state = decompressor->AtEnd() ? 100 : 101;
  reader.Finish(held.size());
  verdict.problem = reader.problem();
  verdict.entry = reader.problem_entry();
  return verdict;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  Random random(std::strtoull(argv[1], nullptr, 10));
  const long rounds = std::strtol(argv[2], nullptr, 10);
  std::vector<Bytes> corpus;
  for (int i = 3; i < argc; i++) {
    std::ifstream file(argv[i], std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  long passed = 0;
  for (long round = 0; round < rounds; round++) {
    Bytes input = Mutate(corpus[random.Below(corpus.size())], random);
    const char* format = "none";
    if (input.size() > 4 && input[0] == 0x1f && input[1] == 0x8b) format = "gzip";
    if (input.size() > 4 && input[0] == 0x28 && input[1] == 0xb5) format = "zstd";
    if (format[0] == 'n' && random.Below(4) != 0) RepairChecksums(input);
    const Verdict first = Read(input, format, random);
    const Verdict second = Read(input, format, random);
    if (!(first == second)) {
      std::fprintf(stderr, "round %ld: %d %zu \"%s\" and %d %zu \"%s\"\n", round, first.state, first.produced,
                   first.problem.c_str(), second.state, second.produced, second.problem.c_str());
      return 1;
    }
    if (first.state == 100 && first.problem.empty()) passed++;
  }
  std::printf("%ld of %ld inputs passed\n", passed, rounds);
  return 0;
}
