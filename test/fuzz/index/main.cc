// The index of an image: a tar cut into layers, through catalogues into a file system, which is then walked as the kernel
// does. Nothing in it may lead out of it or out of the tars, whatever the entries say; a catalogue that somebody has
// damaged is refused or read like any other.
#include "indexer/erofs.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "../require.h"
#include "mutator.h"
#include "tar.h"

namespace {

using namespace caisson;

using Bytes = std::vector<uint8_t>;

// What is stored of a layer: blocks, and its catalogue. Empty when the tar is refused.
Bytes CatalogueOf(const uint8_t* tar, size_t size) {
  const std::string path = "/dev/shm/caisson-fuzz-index-" + std::to_string(getpid());
  unlink(path.c_str());
  CatalogueWriter writer;
  REQUIRE(writer.Create(path) == 0);
  TarReader reader({[&](const LayerEntry& entry) { return writer.Add(entry) == 0; }, [](const uint8_t*) { return true; }});
  const size_t stored = reader.Blocks(tar, size / kTarBlock);
  if (!reader.failed()) reader.Finish(size % kTarBlock);
  REQUIRE(!reader.sink_failed());
  Bytes bytes;
  if (!reader.failed()) {
    REQUIRE(writer.Finish(stored + 2 + reader.appended(), stored + 2) == 0);
    File file;
    uint64_t length = 0;
    REQUIRE(file.OpenExisting(path) == 0 && file.Size(&length) == 0);
    bytes.resize(static_cast<size_t>(length));
    REQUIRE(file.ReadAt(bytes.data(), bytes.size(), 0) == 0);
  }
  unlink(path.c_str());
  return bytes;
}

template <typename Number>
Number At(const Bytes& image, uint64_t at) {
  REQUIRE(at + sizeof(Number) <= image.size());
  Number number;
  std::memcpy(&number, image.data() + at, sizeof number);
  return number;
}

struct Walk {
  const Bytes& image;
  const std::vector<uint64_t>& stored;
  const std::vector<uint16_t>& devices;
  std::set<uint64_t> seen;

  void Chunks(uint64_t at, uint64_t size, uint32_t format) const {
    const unsigned bits = 9 + (format & 0x1f);
    const uint64_t count = (size + (uint64_t{1} << bits) - 1) >> bits;
    for (uint64_t i = 0; i < count; i++) {
      const auto device = At<uint16_t>(image, at + 8 * i + 2);
      const auto block = At<uint32_t>(image, at + 8 * i + 4);
      if (block == 0xffffffff) continue;
      REQUIRE(device >= 1 && device <= devices.size());
      const uint64_t bytes = std::min(size - (i << bits), uint64_t{1} << bits);
      REQUIRE(block + (bytes + 511) / 512 <= stored[devices[device - 1]]);
    }
  }

  void Directory(uint64_t at, uint64_t size, uint64_t parent) {
    std::string last;
    bool any = false;
    for (uint64_t block = 0; block < size; block += 512) {
      const uint64_t room = std::min<uint64_t>(512, size - block);
      const uint64_t count = At<uint16_t>(image, at + block + 8) / 12u;
      REQUIRE(count > 0 && count * 12 <= room);
      for (uint64_t i = 0; i < count; i++) {
        const uint64_t entry = at + block + 12 * i;
        const uint64_t name = At<uint16_t>(image, entry + 8);
        const uint64_t end = i + 1 < count ? At<uint16_t>(image, entry + 20) : room;
        REQUIRE(name >= count * 12 && name < end && end <= room && at + block + end <= image.size());
        const char* text = reinterpret_cast<const char*>(image.data() + at + block + name);
        const std::string found(text, strnlen(text, static_cast<size_t>(end - name)));
        REQUIRE(!found.empty() && found.find('/') == std::string::npos && (!any || last < found));
        last = found;
        any = true;
        if (found != "." && found != "..") Inode(At<uint64_t>(image, entry), parent);
      }
    }
  }

  void Inode(uint64_t number, uint64_t) {
    if (!seen.insert(number).second) return;
    const uint64_t at = number * 32;
    const auto format = At<uint16_t>(image, at);
    const auto xattrs = At<uint16_t>(image, at + 2);
    const auto mode = At<uint16_t>(image, at + 4);
    const auto size = At<uint64_t>(image, at + 8);
    const auto where = At<uint32_t>(image, at + 16);
    REQUIRE((format & 1) == 1 && At<uint32_t>(image, at + 44) > 0);
    const uint64_t inside = at + 64 + (xattrs == 0 ? 0 : 12 + 4 * (xattrs - 1u));
    const unsigned layout = format >> 1;
    REQUIRE(layout == 0 || layout == 2 || layout == 4);
    if (layout == 4) return Chunks((inside + 7) / 8 * 8, size, where);
    if (layout == 2) REQUIRE(at / 512 == (inside + size - 1) / 512);
    const uint64_t data = layout == 2 ? inside : uint64_t{where} * 512;
    if (size == 0) return;
    REQUIRE(data + size <= image.size());
    if ((mode & 0170000) == 0040000) Directory(data, size, number);
  }
};

void Index(const std::vector<Bytes>& catalogues) {
  ImageTree tree;
  std::vector<CatalogueReader> layers(catalogues.size());
  std::vector<uint64_t> stored;
  std::string entry;
  for (size_t i = 0; i < layers.size(); i++) {
    if (!layers[i].Open(catalogues[i].data(), catalogues[i].size())) return;
    if (tree.Apply(&layers[i], static_cast<uint16_t>(i), &entry) != nullptr) return;
    stored.push_back(layers[i].stored_blocks());
  }
  ErofsWriter writer(tree.root(), stored, [&](uint16_t layer, uint64_t block) { return layers[layer].StoredBlock(block); });
  if (writer.Lay(&entry) != nullptr) return;
  const int fd = memfd_create("index", 0);
  REQUIRE(fd >= 0 && writer.Write(fd) == 0);
  const off_t length = lseek(fd, 0, SEEK_END);
  Bytes image(static_cast<size_t>(length));
  REQUIRE(pread(fd, image.data(), image.size(), 0) == length);
  close(fd);
  REQUIRE(At<uint32_t>(image, 1024) == 0xe0f5e1e2 && image.size() % 512 == 0);
  Walk walk{image, stored, writer.devices(), {}};
  walk.Inode(At<uint16_t>(image, 1024 + 14), 0);
  REQUIRE(walk.seen.size() == writer.inodes());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2 * kTarBlock) return 0;
  // The first block says how to read the rest; a tar's mutator works in blocks.
  const size_t whole = size / kTarBlock - 1;
  const size_t cut = kTarBlock * (1 + data[1] % whole);
  std::vector<Bytes> catalogues{CatalogueOf(data + kTarBlock, cut - kTarBlock), CatalogueOf(data + cut, size - cut)};
  if (catalogues[0].empty() && catalogues[1].empty()) return 0;
  catalogues.erase(std::remove_if(catalogues.begin(), catalogues.end(), [](const Bytes& bytes) { return bytes.empty(); }),
                   catalogues.end());
  if (data[0] % 4 == 1) {
    Bytes& damaged = catalogues.back();
    for (size_t i = 2; i < 8; i += 2) damaged[(data[i] << 8 | data[i + 1]) % damaged.size()] ^= data[i + 6];
  }
  Index(catalogues);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  return caisson::fuzz::MutateTar(data, size, max_size, seed);
}
