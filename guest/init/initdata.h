/*
 * The initdata disk: public configuration that the host passes and a verifier judges by its digest.
 * Layout: 8 bytes "CSINITD1", u64 little-endian length N, N bytes of TOML, padding. PID 1 never looks into the TOML.
 */
#ifndef CAISSON_INITDATA_H
#define CAISSON_INITDATA_H

#include <stddef.h>
#include <stdint.h>

#define INITDATA_MAX (1 << 20)

enum initdata_result {
	INITDATA_OK,
	INITDATA_MISSING,
	/* Two disks claim the name: which one was meant would be the host's choice. */
	INITDATA_DUPLICATE,
	/* Wrong magic, a length of zero or above INITDATA_MAX, or a disk shorter than it says. */
	INITDATA_INVALID,
};

struct initdata {
	uint8_t *toml;
	size_t length;
};

/* Finds the disk whose virtio serial is "initdata" and reads it once; what is in memory is what counts from then on. */
enum initdata_result initdata_read(struct initdata *out);

/* Writes /run/caisson/initdata.toml (0400, directory 0700). 0 or -1. */
int initdata_publish(const struct initdata *initdata);

#endif
