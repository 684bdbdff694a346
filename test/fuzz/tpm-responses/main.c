/*
 * Answers of a TPM that the host made up, as PID 1 reads them. Only one dialogue binds: three answers of exactly the
 * right form, the last with the digest that only an extended PCR has. Input: answers, each after its length in one byte.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/socket.h>

/* Its reader is no interface of its own: the file is the unit. */
#include "../../../guest/init/tpm.c"
#include "../require.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t digest[SHA256_SIZE] = { 1, 2, 3 };
	uint8_t chain[2 * SHA256_SIZE] = { 0 }, expected[SHA256_SIZE];
	size_t last = 0, at = 0;
	int ends[2];

	/* Keeps the edges of messages, as the device does. */
	REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
	for (int answers = 0; answers < 3 && at < size; answers++) {
		size_t length = data[at++];

		if (length > size - at)
			length = size - at;
		REQUIRE(send(ends[1], data + at, length, 0) == (ssize_t)length);
		last = at;
		at += length;
	}
	REQUIRE(shutdown(ends[1], SHUT_WR) == 0);
	if (bind_open(ends[0], digest) == TPM_OK) {
		memcpy(chain + SHA256_SIZE, digest, SHA256_SIZE);
		sha256(chain, sizeof chain, expected);
		REQUIRE(at - last == READ_RESPONSE && memcmp(data + last + READ_DIGEST, expected, SHA256_SIZE) == 0);
	}
	close(ends[0]);
	close(ends[1]);
	return 0;
}
