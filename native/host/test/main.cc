// vsock-hostile VHOST_SOCKET VSOCK_SOCKET CASE    runs one case against the caisson-pod that started it
// vsock-hostile --list                            prints "name<TAB>expectation<TAB>title" for each
//
// The expectation is `fatal` where the front-end must be cut off, else `alive`.

#include <signal.h>

#include <cstdio>
#include <cstring>

#include "front_end.h"

namespace {

struct Group {
  std::vector<hostile::Case> cases;
  bool starts_device;  // before each case, as a driver would
};

bool IsFatal(const hostile::Case& item) { return std::strstr(item.title, "fatal") != nullptr; }

}  // namespace

int main(int argc, char** argv) {
  const Group groups[] = {
      {hostile::RingCases(), true},
      {hostile::MessageCases(), false},
      {hostile::PacketCases(), true},
      {hostile::RandomCases(), true},
  };
  if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
    for (const Group& group : groups) {
      for (const hostile::Case& item : group.cases) {
        std::printf("%s\t%s\t%s\n", item.name, IsFatal(item) ? "fatal" : "alive", item.title);
      }
    }
    return 0;
  }
  if (argc != 4) return 2;
  // A VM whose front-end was cut off is ended; this one ends by itself, with its verdict.
  signal(SIGTERM, SIG_IGN);
  for (const Group& group : groups) {
    for (const hostile::Case& item : group.cases) {
      if (std::strcmp(item.name, argv[3]) != 0) continue;
      hostile::FrontEnd vmm(argv[1], argv[2]);
      vmm.Negotiate();
      if (group.starts_device) vmm.Start();
      item.run(vmm);
      return 0;
    }
  }
  return 2;
}
