#include "memory.h"

#include <limits.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace caisson {

namespace {

// Code is never written to, so what is dropped of it is what the file has.
void DropCode() {
  char program[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  FILE* maps = length > 0 ? std::fopen("/proc/self/maps", "re") : nullptr;
  if (maps == nullptr) return;
  program[length] = '\0';
  char line[PATH_MAX + 128];
  while (std::fgets(line, sizeof line, maps) != nullptr) {
    uintptr_t from = 0;
    uintptr_t to = 0;
    char access[5] = "";
    int path = 0;
    if (std::sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %*s %*s %*s %n", &from, &to, access, &path) < 3) continue;
    line[std::strcspn(line, "\n")] = '\0';
    if (std::strcmp(access, "r-xp") != 0 || path == 0 || std::strcmp(line + path, program) != 0) continue;
    madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
  }
  std::fclose(maps);
}

}  // namespace

void ReturnMemory() {
  mallopt(M_ARENA_MAX, 1);
  malloc_trim(0);
  DropCode();
}

}  // namespace caisson
