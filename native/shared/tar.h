// Reads a layer's tar as it streams by (POSIX.1-2001 pax, ustar, GNU long names and sparse files) and hands out its
// entries; refuses what no honest builder writes or readers would disagree about. What passes is stored as it is, up to
// the end-of-archive marker. Whether an entry can be where it says, given the others and the layers below, is for the
// index to find out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "layer-entry.h"
#include "tar-extended.h"
#include "tar-header.h"
#include "tar-sparse.h"

namespace caisson {

class TarReader {
 public:
  static constexpr size_t kBlock = kTarBlock;
  static constexpr uint64_t kMaxEntries = 2'000'000;

  struct Sink {
    // In the archive's order. False when the entry cannot be kept.
    std::function<bool(const LayerEntry&)> entry;
    // A block of content to be stored behind the archive.
    SparseContent::Append append;
  };

  explicit TarReader(Sink sink) : sink_(std::move(sink)) {}

  // Looks at `count` whole blocks. Answers how many of them, from the first on, belong to the archive before its end;
  // blocks after the end are nobody's. Check `failed()` and `sink_failed()` afterwards.
  size_t Blocks(const uint8_t* blocks, size_t count);

  // The stream is over, with `loose_bytes` behind the last whole block. Check `failed()` afterwards.
  void Finish(size_t loose_bytes);

  bool failed() const { return !problem_.empty(); }
  bool sink_failed() const { return sink_failed_; }
  // A sentence about the first entry that was refused, and that entry's name as it stands in the archive.
  const std::string& problem() const { return problem_; }
  const std::string& problem_entry() const { return problem_entry_; }
  uint64_t entries() const { return entries_; }
  // Blocks that were stored behind the archive.
  uint64_t appended() const { return appended_; }

 private:
  enum class State { kHeader, kSkip, kCollect, kSparseMap, kSparseText, kSparseData, kEnd };

  void Fail(std::string_view problem);
  void Header(const uint8_t* block);
  void Collect(const uint8_t* block);
  void Collected();
  void Begin(char type, const uint8_t* block);
  bool Numbers(const uint8_t* block);
  bool Name(const uint8_t* block, std::string_view* base);
  bool Content(char type, const uint8_t* block, uint64_t size);
  void SparseHeader(const uint8_t* structs, size_t count);
  void SparseMapBlock(const uint8_t* block);
  void SparseTextBlock(const uint8_t* block);
  void BeginSparseData();
  void EndSparseData();
  void Emit();
  bool Path(std::string_view raw, std::string* path);
  bool Whiteout(std::string_view base, char type, uint64_t size);

  Sink sink_;
  State state_ = State::kHeader;
  uint64_t block_ = 0;  // how many were seen
  uint64_t left_ = 0;   // blocks of the current entry's content
  char collecting_ = 0;
  uint64_t collect_bytes_ = 0;
  std::vector<uint8_t> collected_;
  uint64_t lines_ = 0;  // in `collected_`, when it is a map of sparse data
  Extensions next_;

  LayerEntry entry_;
  uint64_t data_bytes_ = 0;
  std::vector<SparseRun> runs_;
  SparseContent sparse_;
  uint64_t appended_ = 0;

  uint64_t entries_ = 0;
  bool sink_failed_ = false;
  std::string name_;  // raw name of the entry at hand
  std::string problem_;
  std::string problem_entry_;
};

}  // namespace caisson
