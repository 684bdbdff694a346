/* SHA-256 (FIPS 180-4) of one message in memory. Written out here because the alternative is libcrypto inside PID 1. */
#ifndef CAISSON_SHA256_H
#define CAISSON_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32

void sha256(const uint8_t *message, size_t length, uint8_t digest[SHA256_SIZE]);

#endif
