#include "tar.h"

#include <algorithm>
#include <cstring>

namespace caisson {

namespace {

// linux/limits.h: PATH_MAX, NAME_MAX.
constexpr size_t kMaxPath = 4096;
constexpr size_t kMaxName = 255;
constexpr size_t kMaxDepth = 512;
constexpr uint64_t kMaxExtended = 1024 * 1024;
constexpr uint64_t kMaxId = 0xfffffffe;
// The kernel's MINORBITS leaves 12 bits for the major number.
constexpr uint64_t kMaxMajor = 4095, kMaxMinor = 1048575;

// GNU's old format: runs of sparse data within the header, the same in further blocks, and the size behind them.
constexpr size_t kSparseRuns = 386, kSparseMore = 482, kSparseSize = 483;
constexpr size_t kRun = 24, kRunsInHeader = 4, kRunsInBlock = 21, kBlockMore = 504;

bool StartsWith(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

}  // namespace

void TarReader::Fail(std::string_view problem) {
  if (failed()) return;
  problem_ = problem;
  problem_entry_ = name_;
}

size_t TarReader::Blocks(const uint8_t* blocks, size_t count) {
  size_t at = 0;
  while (at < count && !failed() && !sink_failed_) {
    const uint8_t* block = blocks + at * kBlock;
    if (state_ == State::kEnd) return at;
    if (state_ == State::kSkip) {
      const size_t taken = static_cast<size_t>(std::min<uint64_t>(left_, count - at));
      left_ -= taken;
      at += taken;
      block_ += taken;
      if (left_ == 0) state_ = State::kHeader;
      continue;
    }
    if (state_ == State::kHeader && AllZero(block)) {
      // The first of two; from here on nothing is stored.
      state_ = State::kEnd;
      return at;
    }
    at++;
    block_++;
    switch (state_) {
      case State::kHeader:
        Header(block);
        break;
      case State::kCollect:
        Collect(block);
        break;
      case State::kSparseMap:
        SparseMapBlock(block);
        break;
      case State::kSparseText:
        SparseTextBlock(block);
        break;
      case State::kSparseData:
        left_--;
        if (!sparse_.Push(block, &appended_, sink_.append)) sink_failed_ = true;
        if (left_ == 0) EndSparseData();
        break;
      case State::kSkip:
      case State::kEnd:
        break;
    }
  }
  return at;
}

void TarReader::Header(const uint8_t* block) {
  name_ = Text(block, kName, 100);
  if (!ChecksumHolds(block)) return Fail("its header's checksum is wrong: not a tar");
  if (++entries_ > kMaxEntries) return Fail("more than 2000000 entries");
  const char type = static_cast<char>(block[kType]);
  uint64_t size;
  if (!Number(block, kSize, 12, &size) || size > kMaxFileBytes) return Fail("its size is not a sensible number");

  if (type == 'x' || type == 'g' || type == 'L' || type == 'K') {
    if (size == 0 || size > kMaxExtended) return Fail("an extended header is empty or larger than 1 MiB");
    collecting_ = type;
    collect_bytes_ = size;
    collected_.clear();
    left_ = BlocksOf(size);
    state_ = State::kCollect;
    return;
  }
  Begin(type, block);
}

void TarReader::Collect(const uint8_t* block) {
  collected_.insert(collected_.end(), block, block + kBlock);
  if (--left_ > 0) return;
  state_ = State::kHeader;
  Collected();
}

void TarReader::Collected() {
  collected_.resize(static_cast<size_t>(collect_bytes_));
  const auto* text = reinterpret_cast<const char*>(collected_.data());
  if (collecting_ == 'x' || collecting_ == 'g') {
    const bool global = collecting_ == 'g';
    if (!global) next_.any = true;
    if (const char* problem = ReadPaxRecords({text, collected_.size()}, global, &next_)) Fail(problem);
    return;
  }
  next_.any = true;
  (collecting_ == 'L' ? next_.path : next_.link) = std::string(text, strnlen(text, collected_.size()));
}

// A header that is an entry: everything of it, but for what its content says.
void TarReader::Begin(char type, const uint8_t* block) {
  entry_ = {};
  std::string_view base;
  if (!Numbers(block) || !Name(block, &base)) return;
  uint64_t size = 0;
  Number(block, kSize, 12, &size);
  if (next_.size) size = *next_.size;
  entry_.link = next_.link ? *next_.link : Text(block, kLink, 100);
  entry_.xattrs = std::move(next_.xattrs);
  // Version 7 had no type for directories.
  if (type == '\0') type = !name_.empty() && name_.back() == '/' ? '5' : '0';

  if (StartsWith(base, ".wh.") && !StartsWith(base, ".wh..wh.")) {
    if (!Whiteout(base, type, size)) return;
  } else if (base == ".wh..wh..opq") {
    if (!Whiteout(base, type, size)) return;
  } else if (!Content(type, block, size)) {
    return;
  }
  const bool sparse = entry_.type == EntryType::kFile && (type == 'S' || next_.sparse);
  next_ = {};
  // Where a sparse file's content lies is known behind it.
  if (!sparse) Emit();
}

bool TarReader::Numbers(const uint8_t* block) {
  uint64_t mode, uid, gid;
  const bool sane = Number(block, kMode, 8, &mode) && Number(block, kUid, 8, &uid) && Number(block, kGid, 8, &gid) &&
                    SignedNumber(block, kMtime, 12, &entry_.mtime);
  if (!sane) {
    Fail("its mode, owner or time is not a number");
    return false;
  }
  if (next_.uid) uid = *next_.uid;
  if (next_.gid) gid = *next_.gid;
  if (uid > kMaxId || gid > kMaxId) {
    Fail("its owner is beyond what a user number can be");
    return false;
  }
  entry_.mode = static_cast<uint16_t>(mode & 07777);
  entry_.uid = static_cast<uint32_t>(uid);
  entry_.gid = static_cast<uint32_t>(gid);
  if (next_.mtime) {
    entry_.mtime = next_.mtime->seconds;
    entry_.mtime_ns = next_.mtime->nanoseconds;
  }
  return true;
}

// Sets name_ and the entry's path. `base` is the last component, a part of the path.
bool TarReader::Name(const uint8_t* block, std::string_view* base) {
  if (next_.sparse_path) {
    name_ = *next_.sparse_path;
  } else if (next_.path) {
    name_ = *next_.path;
  } else {
    name_ = Text(block, kName, 100);
    // The prefix field is POSIX's; GNU's old format keeps times there and says "ustar " with a space.
    if (std::memcmp(block + kMagic, "ustar\0", 6) == 0 && block[kPrefix] != 0) {
      name_ = Text(block, kPrefix, 155) + "/" + name_;
    }
  }
  if (!Path(name_, &entry_.path)) return false;
  const size_t slash = entry_.path.rfind('/');
  *base = std::string_view(entry_.path).substr(slash == std::string::npos ? 0 : slash + 1);
  return true;
}

bool TarReader::Content(char type, const uint8_t* block, uint64_t size) {
  const auto refuse = [this](std::string_view problem) {
    Fail(problem);
    return false;
  };
  if (next_.sparse && type != '0' && type != '7') return refuse("its map of sparse data is that of no file");
  if (entry_.path.empty() && type != '5') return refuse("the root can only be a directory");
  switch (type) {
    case '0':
    case '7':
      if (next_.sparse) break;
      entry_.type = EntryType::kFile;
      entry_.size = size;
      if (size > 0) entry_.extents.push_back({0, BlocksOf(size), block_});
      left_ = BlocksOf(size);
      state_ = left_ > 0 ? State::kSkip : State::kHeader;
      return true;
    case 'S':
      break;
    case '1':
    case '2':
      entry_.type = type == '1' ? EntryType::kHardLink : EntryType::kSymlink;
      if (entry_.link.empty() || entry_.link.size() > kMaxPath) {
        return refuse("its link target is empty or longer than 4096 bytes");
      }
      break;
    case '3':
    case '4': {
      entry_.type = type == '3' ? EntryType::kCharacterDevice : EntryType::kBlockDevice;
      uint64_t major = 0, minor = 0;
      const bool sane = Number(block, kMajor, 8, &major) && Number(block, kMinor, 8, &minor);
      if (!sane || major > kMaxMajor || minor > kMaxMinor) return refuse("its device is malformed");
      if (type == '3' && major == 0 && minor == 0) return refuse("device 0:0 would hide files of lower layers");
      entry_.major = static_cast<uint32_t>(major);
      entry_.minor = static_cast<uint32_t>(minor);
      break;
    }
    case '5':
      entry_.type = EntryType::kDirectory;
      break;
    case '6':
      entry_.type = EntryType::kFifo;
      break;
    default:
      return refuse("it is of an unknown type");
  }
  if (type == 'S' || type == '0' || type == '7') {
    entry_.type = EntryType::kFile;
    data_bytes_ = size;
    left_ = BlocksOf(size);
    runs_ = std::move(next_.sparse_map);
    if (type == 'S') {
      if (!Number(block, kSparseSize, 12, &entry_.size) || entry_.size > kMaxFileBytes) {
        return refuse("its size is not a sensible number");
      }
      state_ = block[kSparseMore] != 0 ? State::kSparseMap : State::kSparseData;
      SparseHeader(block + kSparseRuns, kRunsInHeader);
    } else {
      if (!next_.sparse_size) return refuse("its map of sparse data is malformed");
      entry_.size = *next_.sparse_size;
      state_ = next_.sparse_map_in_data ? State::kSparseText : State::kSparseData;
      collected_.clear();
      lines_ = 0;
      if (next_.sparse_map_in_data && (left_ == 0 || !runs_.empty())) return refuse("its map of sparse data is malformed");
    }
    if (!failed() && state_ == State::kSparseData) BeginSparseData();
    return !failed();
  }
  // Only files have content; what others claim would be skipped by some readers and read by others.
  if (size != 0) return refuse("it has content, which its type cannot have");
  if (type == '1') {
    // Relative to the layer's root, as names are.
    std::string target;
    if (!Path(entry_.link, &target)) return false;
    if (target.empty()) return refuse("its link target is a directory");
    entry_.link = std::move(target);
  } else if (type != '2') {
    entry_.link.clear();
  }
  state_ = State::kHeader;
  return true;
}

void TarReader::SparseHeader(const uint8_t* structs, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const uint8_t* run = structs + i * kRun;
    if (run[0] == 0) return;
    SparseRun read;
    if (!Number(run, 0, 12, &read.offset) || !Number(run, 12, 12, &read.length) || read.offset > kMaxFileBytes ||
        read.length > kMaxFileBytes) {
      return Fail("its map of sparse data is malformed");
    }
    if (runs_.size() >= 65536) return Fail("its map of sparse data has more than 65536 runs");
    runs_.push_back(read);
  }
}

void TarReader::SparseMapBlock(const uint8_t* block) {
  SparseHeader(block, kRunsInBlock);
  if (failed() || block[kBlockMore] != 0) return;
  BeginSparseData();
}

// Version 1.0: decimal numbers, a line each, in front of the data: how many runs, then offset and length of each.
void TarReader::SparseTextBlock(const uint8_t* block) {
  constexpr const char* kBad = "its map of sparse data is malformed";
  if (collected_.size() >= kMaxExtended) return Fail("its map of sparse data is larger than 1 MiB");
  collected_.insert(collected_.end(), block, block + kBlock);
  left_--;
  lines_ += static_cast<uint64_t>(std::count(block, block + kBlock, '\n'));
  std::string_view text(reinterpret_cast<const char*>(collected_.data()), collected_.size());
  const size_t first = text.find('\n');
  uint64_t runs = 0;
  if (first == std::string_view::npos || !ParseDecimal(text.substr(0, first), 65536, &runs)) return Fail(kBad);
  if (lines_ < 1 + 2 * runs) {
    if (left_ == 0) Fail(kBad);
    return;
  }
  text.remove_prefix(first + 1);
  for (uint64_t i = 0; i < runs; i++) {
    SparseRun run;
    for (uint64_t* number : {&run.offset, &run.length}) {
      const size_t end = text.find('\n');
      if (!ParseDecimal(text.substr(0, end), kMaxFileBytes, number)) return Fail(kBad);
      text.remove_prefix(end + 1);
    }
    runs_.push_back(run);
  }
  if (collected_.size() > data_bytes_) return Fail(kBad);
  data_bytes_ -= collected_.size();
  BeginSparseData();
}

void TarReader::BeginSparseData() {
  sparse_ = {};
  if (const char* problem = sparse_.Begin(std::move(runs_), entry_.size, data_bytes_, block_)) return Fail(problem);
  runs_.clear();
  state_ = State::kSparseData;
  if (left_ == 0) EndSparseData();
}

void TarReader::EndSparseData() {
  state_ = State::kHeader;
  if (sink_failed_) return;
  if (!sparse_.Finish(&appended_, sink_.append, &entry_.extents)) {
    sink_failed_ = true;
    return;
  }
  Emit();
}

void TarReader::Emit() {
  if (!sink_.entry(entry_)) sink_failed_ = true;
}

// Without leading slashes, empty and "." components; refuses ".." and whiteouts that are used as directories.
bool TarReader::Path(std::string_view raw, std::string* path) {
  const auto refuse = [this](std::string_view problem) {
    Fail(problem);
    return false;
  };
  if (raw.size() > kMaxPath) return refuse("its name is longer than 4096 bytes");
  size_t start = 0, depth = 0;
  bool below_whiteout = false;
  while (start <= raw.size()) {
    const size_t end = std::min(raw.find('/', start), raw.size());
    const std::string_view part = raw.substr(start, end - start);
    start = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") return refuse("its name has a \"..\" component");
    if (part.size() > kMaxName) return refuse("a component of its name is longer than 255 bytes");
    if (below_whiteout) return refuse("it lies below a whiteout");
    if (++depth > kMaxDepth) return refuse("it lies more than 512 directories deep");
    // aufs keeps hard-linked files in .wh..wh.plnk; the index drops what is left of such folders.
    below_whiteout = StartsWith(part, ".wh.") && (!StartsWith(part, ".wh..wh.") || part == ".wh..wh..opq");
    if (!path->empty()) path->push_back('/');
    path->append(part);
  }
  return true;
}

// image-spec layer.md "Whiteouts". What an archive calls them, a file or a link to aufs's own, makes no difference.
bool TarReader::Whiteout(std::string_view base, char type, uint64_t size) {
  const auto refuse = [this](std::string_view problem) {
    Fail(problem);
    return false;
  };
  if (size != 0 || (type != '0' && type != '1')) return refuse("a whiteout must be an empty file");
  const std::string hidden(base.substr(4));
  const size_t folder = entry_.path.size() - base.size();
  LayerEntry whiteout;
  if (base == ".wh..wh..opq") {
    whiteout.type = EntryType::kOpaque;
    whiteout.path = entry_.path.substr(0, folder == 0 ? 0 : folder - 1);
  } else {
    if (hidden.empty() || hidden == "." || hidden == "..") return refuse("it is a whiteout of nothing");
    whiteout.type = EntryType::kWhiteout;
    whiteout.path = entry_.path.substr(0, folder) + hidden;
  }
  entry_ = std::move(whiteout);
  state_ = State::kHeader;
  return true;
}

void TarReader::Finish(size_t loose_bytes) {
  // Without an end-of-archive marker an archive may end between two entries, and nowhere else.
  const bool between = state_ == State::kHeader && !next_.any;
  if (state_ != State::kEnd && (!between || loose_bytes > 0)) Fail("the archive ends within it or behind it");
  if (state_ == State::kEnd && next_.any) Fail("the archive ends within it or behind it");
}

}  // namespace caisson
