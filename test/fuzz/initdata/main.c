/* The initdata disk as PID 1 reads it, before anything is measured. */
#define _GNU_SOURCE
#include <stddef.h>

#include <sys/mman.h>

/* Its reader is no interface of its own: the file is the unit. */
#include "../../../guest/init/initdata.c"
#include "../require.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int disk = -1;
	struct initdata out = { 0 };

	if (disk < 0)
		disk = memfd_create("disk", MFD_CLOEXEC);
	REQUIRE(disk >= 0 && ftruncate(disk, 0) == 0 && pwrite(disk, data, size, 0) == (ssize_t)size);
	REQUIRE(lseek(disk, 0, SEEK_SET) == 0);
	if (read_disk(disk, &out) == INITDATA_OK) {
		REQUIRE(out.length > 0 && out.length <= INITDATA_MAX && out.length <= size - HEADER);
		REQUIRE(memcmp(out.toml, data + HEADER, out.length) == 0);
	}
	/* PID 1 ends the machine instead. */
	free(out.toml);
	return 0;
}
