#include "tar.h"

#include <algorithm>
#include <cstring>

namespace caisson {

namespace {

// linux/limits.h: PATH_MAX, NAME_MAX.
constexpr size_t kMaxPath = 4096;
constexpr size_t kMaxName = 255;
constexpr uint64_t kMaxExtended = 1024 * 1024;
constexpr uint64_t kMaxEntries = 4'000'000;
// Names of directories are kept until the end.
constexpr uint64_t kMaxDirectoryBytes = 64 * 1024 * 1024;
// No file is larger, and sums of sizes stay far from overflow.
constexpr uint64_t kMaxSize = uint64_t{1} << 46;

// "-12.034": sign and fraction are for times; owners that have them fail in the indexer.
bool Decimal(std::string_view text) {
  if (!text.empty() && text[0] == '-') text.remove_prefix(1);
  const size_t point = std::min(text.find('.'), text.size());
  const auto digits = [](std::string_view part) {
    return std::all_of(part.begin(), part.end(), [](char digit) { return digit >= '0' && digit <= '9'; });
  };
  return point > 0 && point <= 18 && digits(text.substr(0, point)) && digits(text.substr(std::min(point + 1, text.size())));
}

bool StartsWith(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

// overlayfs and the kernel's security modules act on these: they are for whoever mounts, not for whoever packs.
bool ForbiddenXattr(std::string_view name) {
  return StartsWith(name, "trusted.overlay.") || StartsWith(name, "user.overlay.") || name == "security.selinux" ||
         name == "security.nfs4_acl" || name == "system.nfs4_acl";
}

}  // namespace

void TarScanner::Fail(std::string_view problem) {
  if (failed()) return;
  problem_ = problem;
  problem_entry_ = entry_;
}

size_t TarScanner::Blocks(const uint8_t* blocks, size_t count) {
  size_t at = 0;
  while (at < count && !failed()) {
    const uint8_t* block = blocks + at * kBlock;
    switch (state_) {
      case State::kEnd:
        return at;
      case State::kSkip: {
        const size_t taken = static_cast<size_t>(std::min<uint64_t>(left_, count - at));
        left_ -= taken;
        at += taken;
        if (left_ == 0) state_ = State::kHeader;
        break;
      }
      case State::kCollect:
        collected_.insert(collected_.end(), block, block + kBlock);
        at++;
        if (--left_ == 0) {
          state_ = State::kHeader;
          Collected();
        }
        break;
      case State::kHeader:
        if (AllZero(block)) {
          // The first of two; from here on nothing is stored.
          state_ = State::kEnd;
          return at;
        }
        Header(block);
        at++;
        break;
    }
  }
  return at;
}

void TarScanner::Header(const uint8_t* block) {
  entry_ = Text(block, kName, 100);
  if (!ChecksumHolds(block)) return Fail("its header's checksum is wrong: not a tar");
  if (++entries_ > kMaxEntries) return Fail("more than 4000000 entries");
  const char type = static_cast<char>(block[kType]);
  uint64_t size;
  if (!Number(block, kSize, 12, &size) || size > kMaxSize) return Fail("its size is not a sensible number");

  if (type == 'x' || type == 'g' || type == 'L' || type == 'K') {
    if (size == 0 || size > kMaxExtended) return Fail("an extended header is empty or larger than 1 MiB");
    collecting_ = type;
    collect_bytes_ = size;
    collected_.clear();
    left_ = BlocksOf(size);
    state_ = State::kCollect;
    return;
  }
  Entry(type, block);
}

void TarScanner::Collected() {
  collected_.resize(static_cast<size_t>(collect_bytes_));
  if (collecting_ == 'g') return PaxRecords(true);
  extended_ = true;
  if (collecting_ == 'x') return PaxRecords(false);
  const auto* text = reinterpret_cast<const char*>(collected_.data());
  std::string name(text, strnlen(text, collected_.size()));
  if (collecting_ == 'L') {
    next_path_ = std::move(name);
    has_next_path_ = true;
  } else {
    next_link_ = std::move(name);
    has_next_link_ = true;
  }
}

// "<length> key=value\n", where the length counts the whole record.
void TarScanner::PaxRecords(bool global) {
  std::string_view rest(reinterpret_cast<const char*>(collected_.data()), collected_.size());
  while (!rest.empty() && rest[0] != '\0' && !failed()) {
    size_t length = 0;
    size_t digits = 0;
    for (; digits < rest.size() && digits < 8 && rest[digits] >= '0' && rest[digits] <= '9'; digits++) {
      length = length * 10 + static_cast<size_t>(rest[digits] - '0');
    }
    const bool sane = digits > 0 && digits < rest.size() && rest[digits] == ' ' && length > digits + 1 &&
                      length <= rest.size() && rest[length - 1] == '\n';
    if (!sane) return Fail("a pax record is malformed");
    const std::string_view record = rest.substr(digits + 1, length - digits - 2);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos || equals == 0) return Fail("a pax record is malformed");
    PaxRecord(record.substr(0, equals), record.substr(equals + 1), global);
    rest.remove_prefix(length);
  }
}

void TarScanner::PaxRecord(std::string_view key, std::string_view value, bool global) {
  // Tools disagree about whom global records concern; only the comment of `git archive` is known to be harmless.
  if (global) return key == "comment" ? void() : Fail("a global pax header sets more than a comment");
  if (StartsWith(key, "GNU.sparse.")) return Fail("sparse files are not supported");
  for (const std::string_view prefix : {"SCHILY.xattr.", "LIBARCHIVE.xattr."}) {
    if (!StartsWith(key, prefix)) continue;
    const std::string_view name = key.substr(prefix.size());
    if (name.empty() || name.find('\0') != std::string_view::npos) return Fail("an extended attribute of it has no name");
    if (ForbiddenXattr(name)) return Fail("an extended attribute of it is not for images to set");
    return;
  }
  if (key == "size") {
    next_size_ = 0;
    for (const char digit : value) {
      if (digit < '0' || digit > '9' || next_size_ > kMaxSize) return Fail("its size is not a sensible number");
      next_size_ = next_size_ * 10 + static_cast<uint64_t>(digit - '0');
    }
    if (value.empty() || next_size_ > kMaxSize) return Fail("its size is not a sensible number");
    has_next_size_ = true;
    return;
  }
  if (key == "mtime" || key == "uid" || key == "gid") {
    if (!Decimal(value)) return Fail("a number in a pax record is malformed");
    return;
  }
  if (key != "path" && key != "linkpath") return;
  if (value.find('\0') != std::string_view::npos) return Fail("its name holds a NUL");
  if (key == "path") {
    next_path_ = value;
    has_next_path_ = true;
  } else {
    next_link_ = value;
    has_next_link_ = true;
  }
}

void TarScanner::Entry(char type, const uint8_t* block) {
  std::string raw = std::move(next_path_);
  if (!has_next_path_) {
    raw = Text(block, kName, 100);
    // The prefix field is POSIX's; GNU's old format keeps times there and says "ustar " with a space.
    if (std::memcmp(block + kMagic, "ustar\0", 6) == 0 && block[kPrefix] != 0) {
      raw = Text(block, kPrefix, 155) + "/" + raw;
    }
  }
  const std::string link = has_next_link_ ? std::move(next_link_) : Text(block, kLink, 100);
  uint64_t size = 0;
  Number(block, kSize, 12, &size);
  if (has_next_size_) size = next_size_;
  extended_ = has_next_path_ = has_next_link_ = has_next_size_ = false;
  next_path_.clear();
  next_link_.clear();
  entry_ = raw;

  std::string path;
  if (!Path(raw, &path)) return;
  const size_t slash = path.rfind('/');
  const std::string_view base = std::string_view(path).substr(slash == std::string::npos ? 0 : slash + 1);
  switch (type) {
    case '0':
    case '\0':
    case '7':
      break;
    case '1':
    case '2':
      if (link.empty() || link.size() > kMaxPath) return Fail("its link target is empty or longer than 4096 bytes");
      break;
    case '3': {
      uint64_t major = 0, minor = 0;
      if (!Number(block, kMajor, 8, &major) || !Number(block, kMinor, 8, &minor)) return Fail("its device is malformed");
      if (major == 0 && minor == 0) return Fail("device 0:0 would hide files of lower layers");
      break;
    }
    case '4':
    case '5':
    case '6':
      break;
    case 'S':
      return Fail("sparse files are not supported");
    default:
      return Fail("it is of an unknown type");
  }
  if (StartsWith(base, ".wh.")) Whiteout(base, type, size);
  if (path.empty() && type != '5') return Fail("the root can only be a directory");
  if (path.empty()) root_seen_ = true;

  for (size_t at = path.find('/'); at != std::string::npos; at = path.find('/', at + 1)) {
    Directory(path.substr(0, at), false);
  }
  if (type == '5') {
    if (!path.empty()) Directory(path, true);
  } else if (directories_.count(path) != 0) {
    return Fail("it takes the place of a directory of the same layer");
  }

  // Only files have content; what others claim would be skipped by some readers and read by others.
  const bool has_content = type == '0' || type == '\0' || type == '7';
  if (!has_content && size != 0) return Fail("it has content, which its type cannot have");
  left_ = BlocksOf(size);
  if (left_ > 0) state_ = State::kSkip;
}

// Without leading slashes, empty and "." components; refuses ".." and whiteouts that are used as directories: the entry
// that is added for a directory which the archive only implies would be one.
bool TarScanner::Path(std::string_view raw, std::string* path) {
  if (raw.size() > kMaxPath) {
    Fail("its name is longer than 4096 bytes");
    return false;
  }
  size_t start = 0;
  bool below_whiteout = false;
  while (start <= raw.size()) {
    const size_t end = std::min(raw.find('/', start), raw.size());
    const std::string_view part = raw.substr(start, end - start);
    start = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      Fail("its name has a \"..\" component");
      return false;
    }
    if (part.size() > kMaxName) {
      Fail("a component of its name is longer than 255 bytes");
      return false;
    }
    if (below_whiteout) {
      Fail("it lies below a whiteout");
      return false;
    }
    below_whiteout = StartsWith(part, ".wh.");
    if (!path->empty()) path->push_back('/');
    path->append(part);
  }
  return true;
}

// image-spec layer.md "Whiteouts".
void TarScanner::Whiteout(std::string_view base, char type, uint64_t size) {
  const std::string_view hidden = base.substr(4);
  if (base == ".wh..wh..opq" || (!hidden.empty() && hidden != "." && hidden != ".." && !StartsWith(hidden, ".wh."))) {
    if (size != 0 || (type != '0' && type != '\0')) Fail("a whiteout must be an empty file");
    return;
  }
  Fail("it is a whiteout of nothing");
}

void TarScanner::Directory(const std::string& path, bool is_explicit) {
  const auto [place, is_new] = directories_.try_emplace(path, is_explicit);
  if (is_explicit) place->second = true;
  if (!is_new) return;
  directory_bytes_ += path.size() + 64;
  if (directory_bytes_ > kMaxDirectoryBytes) Fail("more names of directories than 64 MiB hold");
}

std::vector<uint8_t> TarScanner::Finish(size_t loose_bytes) {
  std::vector<uint8_t> out;
  // Without an end-of-archive marker an archive may end between two entries, and nowhere else: an extended header without
  // its entry would speak about the first directory that is added here.
  const bool within = state_ == State::kSkip || state_ == State::kCollect || extended_;
  if (within || (state_ != State::kEnd && loose_bytes > 0)) Fail("the archive ends within it or behind it");
  if (failed()) return out;
  // Sorted: the same archive gives the same bytes, and parents come before their children.
  std::vector<std::string> missing;
  for (const auto& [path, is_explicit] : directories_) {
    if (!is_explicit) missing.push_back(path);
  }
  std::sort(missing.begin(), missing.end());
  if (!root_seen_) AppendDirectory(&out, ".");
  for (const std::string& path : missing) AppendDirectory(&out, path);
  out.resize(out.size() + 2 * kBlock, 0);
  return out;
}

}  // namespace caisson
