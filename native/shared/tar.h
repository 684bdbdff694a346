// Reads a layer's tar as it streams by (POSIX.1-2001 pax, ustar, GNU long names) and refuses what the indexer behind it
// would get wrong or a container must not have. What passes is stored as it is, up to the end-of-archive marker; the
// directories that the archive implies but does not contain are added after it, so that the index has them with owner
// root and mode 0755 instead of the indexer's own choice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tar-header.h"

namespace caisson {

class TarScanner {
 public:
  static constexpr size_t kBlock = kTarBlock;

  // Looks at `count` whole blocks. Answers how many of them, from the first on, belong to the archive before its end;
  // blocks after the end are nobody's. Check `failed()` afterwards.
  size_t Blocks(const uint8_t* blocks, size_t count);

  // The stream is over, with `loose_bytes` behind the last whole block. Entries for missing directories and the
  // end-of-archive marker, to be stored behind the rest.
  std::vector<uint8_t> Finish(size_t loose_bytes);

  bool failed() const { return !problem_.empty(); }
  // A sentence about the first entry that was refused, and that entry's name as it stands in the archive.
  const std::string& problem() const { return problem_; }
  const std::string& problem_entry() const { return problem_entry_; }

 private:
  enum class State { kHeader, kSkip, kCollect, kEnd };

  void Fail(std::string_view problem);
  void Header(const uint8_t* block);
  void Collected();
  void Entry(char type, const uint8_t* block);
  void PaxRecords(bool global);
  void PaxRecord(std::string_view key, std::string_view value, bool global);
  bool Path(std::string_view raw, std::string* path);
  void Whiteout(std::string_view base, char type, uint64_t size);
  void Directory(const std::string& path, bool is_explicit);

  State state_ = State::kHeader;
  uint64_t left_ = 0;  // blocks of the current entry's content
  char collecting_ = 0;
  uint64_t collect_bytes_ = 0;
  std::vector<uint8_t> collected_;

  // From extended headers, for the next entry.
  std::string next_path_;
  std::string next_link_;
  bool has_next_path_ = false;
  bool has_next_link_ = false;
  bool has_next_size_ = false;
  uint64_t next_size_ = 0;
  bool extended_ = false;  // there are such headers, whatever they hold

  uint64_t entries_ = 0;
  uint64_t directory_bytes_ = 0;
  bool root_seen_ = false;
  std::unordered_map<std::string, bool> directories_;  // to whether the archive has an entry for it
  std::string entry_;                                  // raw name of the entry at hand
  std::string problem_;
  std::string problem_entry_;
};

}  // namespace caisson
