// caisson-index: makes the index of an image from the catalogues of its layers, where hostile bytes can do no harm.
//
//     caisson-index INDEX SECONDS MEMORY_MIB INDEX_MIB CATALOGUE...
//
// Opens the catalogues (base first) for reading and creates INDEX, which must not exist; from then on it is nobody, without
// privileges, network, other files or new programs, with bounded memory, file size, and SECONDS of time. Prints the layers
// that the index needs as devices, as JSON: {"devices":[0,2],"inodes":12}. The exit status is 0, 1 when a layer is
// refused, 124 when time ran out, 125 when something else failed, 134 when memory did; why is the last thing on standard
// error.
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "confine.h"
#include "erofs.h"
#include "tree.h"

namespace {

using caisson::Fail;
using caisson::kExitSetup;

constexpr int kExitRefused = 1;
constexpr int kMaxLayers = 1024;

// Names in a tar need not be text.
std::string Quoted(const std::string& name) {
  std::string text;
  for (const char letter : name.substr(0, 300)) {
    char escaped[8];
    const auto byte = static_cast<unsigned char>(letter);
    std::snprintf(escaped, sizeof escaped, byte < 0x20 || byte >= 0x7f || letter == '"' ? "\\x%02x" : "%c", byte);
    text += escaped;
  }
  return text;
}

[[noreturn]] void Refuse(size_t layer, const std::string& entry, const char* problem) {
  std::fprintf(stderr, "layer %zu: entry \"%s\": %s\n", layer + 1, Quoted(entry).c_str(), problem);
  _exit(kExitRefused);
}

uint64_t Number(const char* text, uint64_t max) {
  char* end;
  errno = 0;
  const unsigned long long value = std::strtoull(text, &end, 10);
  if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || value == 0 || value > max) {
    errno = EINVAL;
    Fail(text);
  }
  return value;
}

void Map(const char* path, caisson::CatalogueReader* reader) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  struct stat status;
  if (fd < 0 || fstat(fd, &status) < 0) Fail(path);
  const auto length = static_cast<size_t>(status.st_size);
  void* bytes = length == 0 ? MAP_FAILED : mmap(nullptr, length, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (bytes == MAP_FAILED || !reader->Open(static_cast<const uint8_t*>(bytes), length)) {
    errno = EBADMSG;
    Fail(path);
  }
}

}  // namespace

int main(int argc, char* argv[]) {
  if (argc < 5 || argc > 5 + kMaxLayers) {
    std::fprintf(stderr, "usage: caisson-index INDEX SECONDS MEMORY_MIB INDEX_MIB CATALOGUE...\n");
    return kExitSetup;
  }
  const caisson::Limits limits = {Number(argv[2], 86400), Number(argv[3], 1 << 20), Number(argv[4], 1 << 20)};
  std::vector<caisson::CatalogueReader> layers(static_cast<size_t>(argc - 5));
  for (size_t i = 0; i < layers.size(); i++) Map(argv[5 + i], &layers[i]);
  const int index = open(argv[1], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (index < 0) Fail(argv[1]);
  caisson::Confine(limits);

  caisson::ImageTree tree;
  std::string entry;
  std::vector<uint64_t> stored;
  for (size_t i = 0; i < layers.size(); i++) {
    if (const char* problem = tree.Apply(&layers[i], static_cast<uint16_t>(i), &entry)) Refuse(i, entry, problem);
    stored.push_back(layers[i].stored_blocks());
  }
  tree.Finish();
  const auto resolve = [&](uint16_t layer, uint64_t block) { return layers[layer].StoredBlock(block); };
  caisson::ErofsWriter writer(tree.root(), stored, resolve);
  if (const char* problem = writer.Lay(&entry)) Refuse(layers.size() - 1, entry, problem);
  if (const int error = writer.Write(index)) {
    if (error == EFBIG) Refuse(layers.size() - 1, "", "the index of the image would be larger than allowed");
    errno = error;
    Fail("index");
  }
  std::string devices;
  for (const uint16_t device : writer.devices()) devices += (devices.empty() ? "" : ",") + std::to_string(device);
  std::printf("{\"devices\":[%s],\"inodes\":%llu}\n", devices.c_str(), static_cast<unsigned long long>(writer.inodes()));
  std::fflush(stdout);
  return 0;
}
