// Memory of the whole process that nobody needs any more.
#pragma once

namespace caisson {

// Hands back to the kernel what the C library keeps for later, and the pages of the program's own code: what its start
// ran through stays mapped otherwise, 30 MiB of Node's. What is needed again is read again from the page cache. From then
// on threads share one heap, since each of their own keeps what was once freed in it.
void ReturnMemory();

}  // namespace caisson
