#include "tar-extended.h"

#include <algorithm>

namespace caisson {

namespace {

constexpr const char* kMalformed = "a pax record is malformed";
constexpr const char* kBadNumber = "a number in a pax record is malformed";
constexpr const char* kBadSize = "its size is not a sensible number";
constexpr const char* kBadSparse = "its map of sparse data is malformed";
constexpr uint64_t kMaxId = 0xfffffffe;  // the last one means "nobody" to chown(2)
// linux/limits.h: XATTR_NAME_MAX, XATTR_SIZE_MAX; the index has 16 bits for a length.
constexpr size_t kMaxXattrName = 255;
constexpr size_t kMaxXattrValue = 65535;
constexpr size_t kMaxXattrBytes = 64 * 1024;

bool StartsWith(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

// overlayfs and the kernel's security modules act on these: they are for whoever mounts, not for whoever packs.
bool ForbiddenXattr(std::string_view name) {
  return StartsWith(name, "trusted.overlay.") || StartsWith(name, "user.overlay.") || name == "security.selinux" ||
         name == "security.nfs4_acl" || name == "system.nfs4_acl";
}

// "-12.034": seconds, rounded towards the past, and nanoseconds.
bool ParseTime(std::string_view text, TarTime* time) {
  const bool negative = !text.empty() && text[0] == '-';
  if (negative) text.remove_prefix(1);
  const size_t point = std::min(text.find('.'), text.size());
  uint64_t seconds;
  if (!ParseDecimal(text.substr(0, point), 1'000'000'000'000, &seconds)) return false;
  uint32_t nanoseconds = 0;
  uint32_t unit = 100'000'000;
  for (const char digit : text.substr(std::min(point + 1, text.size()))) {
    if (digit < '0' || digit > '9') return false;
    nanoseconds += static_cast<uint32_t>(digit - '0') * unit;
    unit /= 10;
  }
  time->seconds = static_cast<int64_t>(seconds);
  time->nanoseconds = nanoseconds;
  if (!negative) return true;
  time->seconds = -time->seconds;
  if (nanoseconds > 0) {
    time->seconds--;
    time->nanoseconds = 1'000'000'000 - nanoseconds;
  }
  return true;
}

int HexDigit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  return digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

// libarchive writes names of attributes with %XX for what is not printable.
bool DecodePercent(std::string_view text, std::string* out) {
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] != '%') {
      out->push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size()) return false;
    const int high = HexDigit(text[i + 1]), low = HexDigit(text[i + 2]);
    if (high < 0 || low < 0) return false;
    out->push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return true;
}

// RFC 4648, padding optional, as libarchive writes it.
bool DecodeBase64(std::string_view text, std::string* out) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  uint32_t bits = 0;
  int held = 0;
  for (const char letter : text) {
    const size_t value = kAlphabet.find(letter);
    if (value == std::string_view::npos) return false;
    bits = bits << 6 | static_cast<uint32_t>(value);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    out->push_back(static_cast<char>(bits >> held));
    bits &= (1u << held) - 1;
  }
  return bits == 0 && held < 6;
}

const char* AddXattr(std::string name, std::string value, Extensions* extensions) {
  if (name.empty() || name.find('\0') != std::string::npos) return "an extended attribute of it has no name";
  if (ForbiddenXattr(name)) return "an extended attribute of it is not for images to set";
  if (name.size() > kMaxXattrName || value.size() > kMaxXattrValue) return "an extended attribute of it is too long";
  const auto same = [&](const Xattr& other) { return other.name == name; };
  auto& all = extensions->xattrs;
  // Tools write an attribute in both spellings; the later one counts, and both say the same.
  all.erase(std::remove_if(all.begin(), all.end(), same), all.end());
  all.push_back({std::move(name), std::move(value)});
  size_t bytes = 0;
  for (const Xattr& xattr : all) bytes += xattr.name.size() + xattr.value.size();
  return bytes > kMaxXattrBytes ? "its extended attributes take more than 65536 bytes" : nullptr;
}

const char* SparseMap01(std::string_view value, Extensions* extensions) {
  if (!extensions->sparse_map.empty()) return kBadSparse;
  while (!value.empty()) {
    SparseRun run;
    for (uint64_t* number : {&run.offset, &run.length}) {
      const size_t comma = std::min(value.find(','), value.size());
      if (!ParseDecimal(value.substr(0, comma), kMaxFileBytes, number)) return kBadSparse;
      value.remove_prefix(std::min(comma + 1, value.size()));
    }
    extensions->sparse_map.push_back(run);
  }
  return nullptr;
}

const char* SparseRecord(std::string_view key, std::string_view value, Extensions* extensions) {
  extensions->sparse = true;
  uint64_t number;
  if (key == "map") return SparseMap01(value, extensions);
  if (key == "name") {
    if (value.find('\0') != std::string_view::npos) return "its name holds a NUL";
    extensions->sparse_path = value;
    return nullptr;
  }
  if (!ParseDecimal(value, kMaxFileBytes, &number)) return kBadSparse;
  if (key == "size" || key == "realsize") {
    extensions->sparse_size = number;
  } else if (key == "offset") {
    if (extensions->sparse_offset) return kBadSparse;
    extensions->sparse_offset = number;
  } else if (key == "numbytes") {
    if (!extensions->sparse_offset) return kBadSparse;
    extensions->sparse_map.push_back({*extensions->sparse_offset, number});
    extensions->sparse_offset.reset();
  } else if (key == "major") {
    if (number > 1) return "its sparse format is of an unknown version";
    extensions->sparse_map_in_data = number == 1;
  } else if (key == "minor") {
    if (number > 1) return "its sparse format is of an unknown version";
  } else if (key != "numblocks") {
    return kBadSparse;
  }
  return nullptr;
}

template <typename Id>
const char* SetId(std::string_view value, std::optional<Id>* id) {
  uint64_t number;
  if (!ParseDecimal(value, kMaxId, &number)) return kBadNumber;
  *id = static_cast<Id>(number);
  return nullptr;
}

const char* Record(std::string_view key, std::string_view value, Extensions* extensions) {
  constexpr std::string_view kSparse = "GNU.sparse.", kSchily = "SCHILY.xattr.", kLibarchive = "LIBARCHIVE.xattr.";
  if (StartsWith(key, kSparse)) return SparseRecord(key.substr(kSparse.size()), value, extensions);
  if (StartsWith(key, kSchily)) {
    return AddXattr(std::string(key.substr(kSchily.size())), std::string(value), extensions);
  }
  if (StartsWith(key, kLibarchive)) {
    std::string name, decoded;
    if (!DecodePercent(key.substr(kLibarchive.size()), &name) || !DecodeBase64(value, &decoded)) return kMalformed;
    return AddXattr(std::move(name), std::move(decoded), extensions);
  }
  // An empty value takes a record back: what the header says holds.
  if (value.empty()) return nullptr;
  if (key == "size") {
    uint64_t size;
    if (!ParseDecimal(value, kMaxFileBytes, &size)) return kBadSize;
    extensions->size = size;
  } else if (key == "uid") {
    return SetId(value, &extensions->uid);
  } else if (key == "gid") {
    return SetId(value, &extensions->gid);
  } else if (key == "mtime") {
    TarTime time;
    if (!ParseTime(value, &time)) return kBadNumber;
    extensions->mtime = time;
  } else if (key == "path" || key == "linkpath") {
    if (value.find('\0') != std::string_view::npos) return "its name holds a NUL";
    (key == "path" ? extensions->path : extensions->link) = value;
  }
  return nullptr;
}

}  // namespace

bool ParseDecimal(std::string_view text, uint64_t max, uint64_t* value) {
  *value = 0;
  if (text.empty()) return false;
  text.remove_prefix(std::min(text.find_first_not_of('0'), text.size()));
  if (text.size() > 19) return false;
  for (const char digit : text) {
    if (digit < '0' || digit > '9') return false;
    *value = *value * 10 + static_cast<uint64_t>(digit - '0');
  }
  return *value <= max;
}

// "<length> key=value\n", where the length counts the whole record.
const char* ReadPaxRecords(std::string_view rest, bool global, Extensions* extensions) {
  while (!rest.empty() && rest[0] != '\0') {
    size_t length = 0;
    size_t digits = 0;
    for (; digits < rest.size() && digits < 8 && rest[digits] >= '0' && rest[digits] <= '9'; digits++) {
      length = length * 10 + static_cast<size_t>(rest[digits] - '0');
    }
    const bool sane = digits > 0 && digits < rest.size() && rest[digits] == ' ' && length > digits + 1 &&
                      length <= rest.size() && rest[length - 1] == '\n';
    if (!sane) return kMalformed;
    const std::string_view record = rest.substr(digits + 1, length - digits - 2);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos || equals == 0) return kMalformed;
    const std::string_view key = record.substr(0, equals);
    if (global) {
      // Tools disagree about whom global records concern; only the comment of `git archive` is known to be harmless.
      if (key != "comment") return "a global pax header sets more than a comment";
    } else if (const char* problem = Record(key, record.substr(equals + 1), extensions)) {
      return problem;
    }
    rest.remove_prefix(length);
  }
  return extensions->sparse_offset ? kBadSparse : nullptr;
}

}  // namespace caisson
