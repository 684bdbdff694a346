#include "command.h"

#include <string_view>

namespace caisson::shim {
namespace {

std::string* Field(Command& command, std::string_view name) {
  if (name == "id") return &command.id;
  if (name == "namespace") return &command.ns;
  if (name == "address") return &command.address;
  if (name == "publish-binary") return &command.publish;
  if (name == "bundle") return &command.bundle;
  if (name == "socket") return &command.socket;
  return nullptr;
}

Command::Verb VerbOf(std::string_view word) {
  if (word == "start") return Command::Verb::kStart;
  if (word == "delete") return Command::Verb::kDelete;
  if (word == "serve") return Command::Verb::kServe;
  return Command::Verb::kNone;
}

}  // namespace

std::string ParseCommand(int argc, char** argv, Command& command) {
  std::string ignored;
  for (int index = 1; index < argc; ++index) {
    std::string_view word = argv[index];
    if (!word.starts_with('-')) {
      command.verb = VerbOf(word);
      return command.verb == Command::Verb::kNone ? "unknown command " + std::string(word) : "";
    }
    word.remove_prefix(word.starts_with("--") ? 2 : 1);
    const size_t equals = word.find('=');
    const std::string name(word.substr(0, equals));
    if (name == "v" || name == "version") {
      command.verb = Command::Verb::kVersion;
      return "";
    }
    if (name == "info") {
      command.verb = Command::Verb::kInfo;
      return "";
    }
    if (name == "debug") {
      command.debug = equals == std::string_view::npos || word.substr(equals + 1) != "false";
      continue;
    }
    // `debug-socket` is for Go's profiler.
    std::string* field = name == "debug-socket" ? &ignored : Field(command, name);
    if (field == nullptr) return "unknown option " + name;
    if (equals != std::string_view::npos) {
      *field = std::string(word.substr(equals + 1));
    } else if (++index < argc) {
      *field = argv[index];
    } else {
      return name + " needs a value";
    }
  }
  return "the command is missing: start or delete";
}

}  // namespace caisson::shim
