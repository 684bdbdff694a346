// A whole layer: decompression, digests, the scanner, the file and its verity tree. The first byte is the format, and how
// the bytes arrive decides nothing: two ways end alike.
#include "layer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "../require.h"

namespace {

using namespace caisson;

constexpr uint64_t kMaxTar = 4 << 20;

struct Outcome {
  LayerStatus status = LayerStatus::kOk;
  LayerResult result;
  uint64_t file_bytes = 0;
};

const std::string& Folder() {
  static const std::string folder = [] {
    // A file system in memory if there is one: the files live for microseconds.
    char name[] = "/dev/shm/caisson-fuzz-XXXXXX", other[] = "/tmp/caisson-fuzz-XXXXXX";
    const char* made = mkdtemp(name);
    if (made == nullptr) made = mkdtemp(other);
    REQUIRE(made != nullptr);
    static std::string kept = made;
    std::atexit([] { rmdir(kept.c_str()); });
    return kept;
  }();
  return folder;
}

Outcome Read(const char* format, const uint8_t* data, size_t size, size_t portion) {
  const std::string path = Folder() + "/layer";
  Outcome outcome;
  {
    Layer layer;
    // An odd size is taken for encrypted: then only what nobody could have made is missing, the right code.
    const std::vector<uint8_t> key(size % 2 == 0 ? 0 : 32, 9), nonce(size % 2 == 0 ? 0 : 16, 1);
    outcome.status =
        layer.Begin({path, path + ".entries", format, std::vector<uint8_t>(32, 7), kMaxTar, 1100, key, nonce, key});
    for (size_t at = 0; at < size && outcome.status == LayerStatus::kOk; at += portion) {
      const std::vector<uint8_t> bytes(data + at, data + at + std::min(portion, size - at));
      outcome.status = layer.Write(bytes.data(), bytes.size());
    }
    if (outcome.status == LayerStatus::kOk) outcome.status = layer.Finish(&outcome.result);
    REQUIRE(outcome.status != LayerStatus::kFile);
    REQUIRE((outcome.status == LayerStatus::kEntry) == !layer.problem().empty());
    REQUIRE(layer.tar_bytes() <= kMaxTar);
  }
  struct stat stat;
  if (::stat(path.c_str(), &stat) == 0) outcome.file_bytes = static_cast<uint64_t>(stat.st_size);
  unlink(path.c_str());
  unlink((path + ".entries").c_str());
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const char* format = data[0] % 3 == 0 ? "none" : data[0] % 3 == 1 ? "gzip" : "zstd";
  const size_t portion = 1 + data[0] / 3 * 13;
  const Outcome first = Read(format, data + 1, size - 1, size);
  const Outcome second = Read(format, data + 1, size - 1, portion);
  // Which of two problems is met first depends on the portions; that there is one does not.
  REQUIRE((first.status == LayerStatus::kOk) == (second.status == LayerStatus::kOk));
  if (first.status != LayerStatus::kOk) return 0;
  REQUIRE(first.file_bytes == second.file_bytes && first.file_bytes % 512 == 0);
  REQUIRE(first.result.tar_bytes == second.result.tar_bytes && first.result.diff_id == second.result.diff_id);
  REQUIRE(first.result.compressed_digest == second.result.compressed_digest);
  REQUIRE(first.result.compressed_bytes == size - 1);
  REQUIRE(first.result.tree.root_hash == second.result.tree.root_hash);
  return 0;
}
