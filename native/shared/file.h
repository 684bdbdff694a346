// Files: whole reads and writes, no exceptions, errno as the result.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace caisson {

// Owns one descriptor.
class File {
 public:
  File() = default;
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Each returns 0 or errno.
  // A new file; an existing one of that name, or a symbolic link, is an error.
  int Create(const std::string& path);
  int OpenExisting(const std::string& path);
  int OpenReadOnly(const std::string& path);
  // A file without a name in the folder of `path`, gone when closed.
  int CreateAnonymous(const std::string& beside);
  int WriteAt(const uint8_t* bytes, size_t length, uint64_t offset);
  int ReadAt(uint8_t* bytes, size_t length, uint64_t offset) const;
  int Size(uint64_t* bytes) const;
  int Sync();
  void Close();

 private:
  int fd_ = -1;
};

}  // namespace caisson
