#include "settings.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "unique_fd.h"

namespace caisson::shim {
namespace {

constexpr size_t kMaxBytes = 64 * 1024;

bool ReadFile(const std::string& path, std::string& text) {
  const pod::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return false;
  char chunk[4096];
  for (ssize_t count; (count = read(fd.get(), chunk, sizeof chunk)) > 0 && text.size() < kMaxBytes;) {
    text.append(chunk, static_cast<size_t>(count));
  }
  return true;
}

// The folder above the one that the program lies in.
std::string Prefix() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  if (length <= 0) return "";
  const std::string program(path, static_cast<size_t>(length));
  const size_t folder = program.rfind('/');
  const size_t above = folder == 0 ? std::string::npos : program.rfind('/', folder - 1);
  return above == std::string::npos ? "" : program.substr(0, above);
}

}  // namespace

std::string ParseSettings(std::string_view text, Settings& settings) {
  while (!text.empty()) {
    const size_t newline = text.find('\n');
    const std::string_view line = text.substr(0, newline);
    text = newline == std::string_view::npos ? std::string_view() : text.substr(newline + 1);
    if (line.empty() || line.starts_with('#')) continue;
    const size_t space = line.find(' ');
    if (space == std::string_view::npos) return "shim.conf: a line without a value: " + std::string(line);
    const std::string_view name = line.substr(0, space);
    const std::string value(line.substr(space + 1));
    if (name == "socket") {
      settings.socket = value;
    } else if (name == "log") {
      settings.log = value;
    } else if (name == "daemon") {
      settings.daemon.push_back(value);
    } else {
      return "shim.conf: unknown setting " + std::string(name);
    }
  }
  return "";
}

std::string LoadSettings(Settings& settings) {
  std::string text;
  if (!ReadFile(Prefix() + "/etc/caisson/shim.conf", text)) ReadFile("/etc/caisson/shim.conf", text);
  const std::string problem = ParseSettings(text, settings);
  if (settings.log.empty()) settings.log = settings.socket + ".log";
  return problem;
}

}  // namespace caisson::shim
