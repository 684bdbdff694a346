#include "device_mapper.h"

#include <linux/dm-ioctl.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/sysmacros.h>

#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "descriptor.h"
#include "storage.h"

namespace caisson {
namespace {

constexpr size_t kXtsKeyBytes = 64;
constexpr size_t kMacKeyBytes = 32;
// Of each block of scratch.
constexpr int kCodeBytes = 32;
// Of scratch, where mke2fs looks before it writes.
constexpr size_t kBlankBytes = 1024 * 1024;

// Memory that held key material is wiped whatever way the function ends.
class WipedBytes {
 public:
  explicit WipedBytes(size_t bytes) : bytes_(bytes) {}
  ~WipedBytes() { ::explicit_bzero(bytes_.data(), bytes_.size()); }
  WipedBytes(const WipedBytes&) = delete;
  WipedBytes& operator=(const WipedBytes&) = delete;
  [[nodiscard]] char* data() noexcept { return bytes_.data(); }
  [[nodiscard]] size_t size() const noexcept { return bytes_.size(); }

 private:
  std::vector<char> bytes_;
};

// Writes the header of Documentation/admin-guide/device-mapper (struct dm_ioctl) for a request of `size` bytes.
dm_ioctl* Request(char* buffer, size_t size, const std::string& name, uint32_t flags) noexcept {
  auto* request = reinterpret_cast<dm_ioctl*>(buffer);
  request->version[0] = DM_VERSION_MAJOR;
  request->data_size = static_cast<uint32_t>(size);
  request->data_start = sizeof(dm_ioctl);
  request->flags = flags;
  std::memcpy(request->name, name.data(), name.size());
  return request;
}

int Control(int control, unsigned long command, const std::string& name, uint32_t flags, dm_ioctl& answer) noexcept {
  std::array<char, sizeof(dm_ioctl)> buffer{};
  dm_ioctl* request = Request(buffer.data(), buffer.size(), name, flags);
  if (::ioctl(control, command, request) != 0) return -errno;
  answer = *request;
  return 0;
}

int LoadTable(int control, const std::string& name, const std::string& target, const char* parameters,
              size_t parameters_bytes, uint64_t sectors, uint32_t flags) {
  const size_t spec = sizeof(dm_ioctl);
  const size_t text = spec + sizeof(dm_target_spec);
  WipedBytes buffer((text + parameters_bytes + 1 + 7) & ~size_t{7});
  // DM_SECURE_DATA_FLAG: the kernel wipes its own copy too.
  dm_ioctl* request = Request(buffer.data(), buffer.size(), name, flags | DM_SECURE_DATA_FLAG);
  request->target_count = 1;
  auto* target_spec = reinterpret_cast<dm_target_spec*>(buffer.data() + spec);
  target_spec->length = sectors;
  std::memcpy(target_spec->target_type, target.data(), target.size());
  std::memcpy(buffer.data() + text, parameters, parameters_bytes);
  return ::ioctl(control, DM_TABLE_LOAD, request) != 0 ? -errno : 0;
}

int Create(const std::string& name, const std::string& target, const char* parameters, size_t parameters_bytes,
           uint64_t sectors, bool read_only) {
  if (name.size() >= DM_NAME_LEN || target.size() >= DM_MAX_TYPE_NAME) return -ENAMETOOLONG;
  const Descriptor control("/dev/mapper/control", O_RDWR);
  if (!control.valid()) return -errno;
  const uint32_t flags = read_only ? DM_READONLY_FLAG : 0;
  dm_ioctl created{};
  int result = Control(control.get(), DM_DEV_CREATE, name, flags, created);
  if (result != 0) return result;
  result = LoadTable(control.get(), name, target, parameters, parameters_bytes, sectors, flags);
  dm_ioctl ignored{};
  // Without DM_SUSPEND_FLAG this resumes, which makes the loaded table live.
  if (result == 0) result = Control(control.get(), DM_DEV_SUSPEND, name, flags, ignored);
  if (result != 0) {
    (void)Control(control.get(), DM_DEV_REMOVE, name, 0, ignored);
    return result;
  }
  return static_cast<int>(minor(static_cast<dev_t>(created.dev)));
}

// A table's parameters, with a key in hexadecimal among them.
class Parameters {
 public:
  explicit Parameters(size_t bytes) : text_(bytes) {}

  __attribute__((format(printf, 2, 3))) void Add(const char* format, ...) noexcept {
    va_list values;
    va_start(values, format);
    length_ += std::vsnprintf(text_.data() + length_, text_.size() - static_cast<size_t>(length_), format, values);
    va_end(values);
  }
  void AddKey(const uint8_t* key, size_t bytes) noexcept {
    for (size_t i = 0; i < bytes; i++) Add("%02x", key[i]);
  }
  [[nodiscard]] const char* data() noexcept { return text_.data(); }
  [[nodiscard]] size_t size() const noexcept { return static_cast<size_t>(length_); }

 private:
  WipedBytes text_;
  int length_ = 0;
};

int WriteZeros(const std::string& path, size_t bytes) {
  const Descriptor device(path, O_WRONLY);
  if (!device.valid()) return -errno;
  const std::vector<char> zeros(bytes, 0);
  for (size_t done = 0; done < bytes;) {
    const ssize_t written = ::pwrite(device.get(), zeros.data() + done, bytes - done, static_cast<off_t>(done));
    if (written <= 0) return written < 0 ? -errno : -EIO;
    done += static_cast<size_t>(written);
  }
  return ::fsync(device.get()) != 0 ? -errno : 0;
}

// Sectors of `device` that are left for data when each block has a code: codes take 1/128, and there is a superblock, a
// journal that is not used, and a last group that may not be full.
uint64_t ScratchSectors(int64_t bytes) noexcept {
  const uint64_t sectors = static_cast<uint64_t>(bytes) / kSectorBytes;
  const uint64_t taken = sectors / 64 + 2048;
  return sectors <= taken ? 0 : (sectors - taken) / (kScratchBlock / kSectorBytes) * (kScratchBlock / kSectorBytes);
}

int CreateCodes(const std::string& name, const std::string& device, uint64_t sectors) {
  // dm-integrity makes a superblock where it finds zeros. That spares an honest host's disk its old one, and binds no
  // other: the kernel reads these zeros back from the host, which may answer with a superblock and a journal of its own.
  // They would lie below dm-crypt, which encrypts and authenticates: an error or noise, and nothing of the content.
  if (const int error = WriteZeros(device, kScratchBlock)) return error;
  // D: written directly. A journal would serve whoever comes after a crash, and nobody does.
  const std::string parameters = device + " 0 " + std::to_string(kCodeBytes) +
                                 " D 2 block_size:" + std::to_string(kScratchBlock) + " journal_sectors:64";
  return CreateMapped(name, "integrity", parameters, sectors, false);
}

int CreateAuthenticated(const std::string& name, const std::string& device, uint64_t sectors) {
  std::array<uint8_t, kXtsKeyBytes + kMacKeyBytes> key{};
  if (::getrandom(key.data(), key.size(), 0) != static_cast<ssize_t>(key.size())) return -EIO;
  Parameters parameters(2 * key.size() + device.size() + 160);
  parameters.Add("capi:authenc(hmac(sha256),xts(aes))-plain64 ");
  parameters.AddKey(key.data(), key.size());
  ::explicit_bzero(key.data(), key.size());
  parameters.Add(" 0 %s 0 4 integrity:%d:aead sector_size:%u no_read_workqueue no_write_workqueue", device.c_str(),
                 kCodeBytes, kScratchBlock);
  return Create(name, "crypt", parameters.data(), parameters.size(), sectors, false);
}

}  // namespace

int CreateMapped(const std::string& name, const std::string& target, const std::string& parameters, uint64_t sectors,
                 bool read_only) noexcept {
  return Create(name, target, parameters.data(), parameters.size(), sectors, read_only);
}

int CreateScratch(const std::string& name, const std::string& device) noexcept {
  const int64_t bytes = BlockDeviceSize(device);
  if (bytes < 0) return static_cast<int>(bytes);
  const uint64_t sectors = ScratchSectors(bytes);
  if (sectors == 0) return -ENOSPC;
  const std::string codes = name + "-codes";
  const int lower = CreateCodes(codes, device, sectors);
  if (lower < 0) return lower;
  int upper = CreateAuthenticated(name, "/dev/dm-" + std::to_string(lower), sectors);
  if (upper >= 0) {
    const int error = WriteZeros("/dev/dm-" + std::to_string(upper), kBlankBytes);
    if (error == 0) return upper;
    (void)RemoveMapped(name);
    upper = error;
  }
  (void)RemoveMapped(codes);
  return upper;
}

int CreateCrypt(const std::string& name, const std::string& device, std::vector<uint8_t> key, uint64_t offset,
                uint64_t sectors, uint32_t sector_bytes) noexcept {
  if (key.size() != kXtsKeyBytes) {
    ::explicit_bzero(key.data(), key.size());
    return -EINVAL;
  }
  Parameters parameters(2 * kXtsKeyBytes + device.size() + 128);
  parameters.Add("aes-xts-plain64 ");
  parameters.AddKey(key.data(), key.size());
  ::explicit_bzero(key.data(), key.size());
  const bool large = sector_bytes == 4096;
  parameters.Add(" 0 %s %llu %d no_read_workqueue no_write_workqueue%s", device.c_str(),
                 static_cast<unsigned long long>(offset), large ? 3 : 2, large ? " sector_size:4096" : "");
  return Create(name, "crypt", parameters.data(), parameters.size(), sectors, false);
}

int RemoveMapped(const std::string& name) noexcept {
  if (name.size() >= DM_NAME_LEN) return -ENAMETOOLONG;
  const Descriptor control("/dev/mapper/control", O_RDWR);
  if (!control.valid()) return -errno;
  dm_ioctl ignored{};
  // Somebody may still be letting go of it: then it goes when they are done.
  return Control(control.get(), DM_DEV_REMOVE, name, DM_DEFERRED_REMOVE, ignored);
}

}  // namespace caisson
