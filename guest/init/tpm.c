/*
 * Raw commands on /dev/tpm0 (TPM 2.0 Library Part 3: 22.2 TPM2_PCR_Extend, 22.4 TPM2_PCR_Read). The device takes a
 * whole command in one write and gives a whole response in one read.
 */
#include "tpm.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define DEVICE "/dev/tpm0"
#define PCR 8

static const uint8_t READ_PCR[] = {
	0x80, 0x01, 0, 0, 0, 20, 0, 0, 0x01, 0x7e, /* no sessions, size, TPM_CC_PCR_Read */
	0, 0, 0, 1, 0x00, 0x0b, 3,                 /* one selection: SHA-256, three bytes of bitmap */
	0, 1 << (PCR - 8), 0,
};
/* Response: header (10), update counter (4), selection (10), count (4), digest size (2), digest. */
#define READ_SELECTION 14
#define READ_DIGEST 30
#define READ_RESPONSE (READ_DIGEST + SHA256_SIZE)

static const uint8_t EXTEND_PCR[] = {
	0x80, 0x02, 0, 0, 0, 65, 0, 0, 0x01, 0x82, /* sessions, size, TPM_CC_PCR_Extend */
	0, 0, 0, PCR,                              /* handle */
	0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0,  /* authorization: TPM_RS_PW with the empty password */
	0, 0, 0, 1, 0x00, 0x0b,                    /* one digest: SHA-256, its 32 bytes follow */
};
#define EXTEND_RESPONSE 19

/* Sends one command; true when the response has exactly this size and TPM_RC_SUCCESS. */
static bool submit(int fd, const uint8_t *command, size_t size, uint8_t *response, size_t response_size)
{
	uint8_t buffer[4096];
	ssize_t got;

	if (write(fd, command, size) != (ssize_t)size)
		return false;
	got = read(fd, buffer, sizeof buffer);
	if (got != (ssize_t)response_size)
		return false;
	/* The response repeats the tag of the command, tells its own size, and carries the response code. */
	if (memcmp(buffer, command, 2) != 0 || buffer[2] != 0 || buffer[3] != 0 || buffer[4] != response_size >> 8 ||
	    buffer[5] != (response_size & 0xff) || memcmp(buffer + 6, "\0\0\0\0", 4) != 0)
		return false;
	memcpy(response, buffer, response_size);
	return true;
}

/* False also when the bank is not allocated: the TPM then returns an empty selection and no digest. */
static bool read_pcr(int fd, uint8_t value[SHA256_SIZE])
{
	uint8_t response[READ_RESPONSE];

	if (!submit(fd, READ_PCR, sizeof READ_PCR, response, sizeof response))
		return false;
	if (memcmp(response + READ_SELECTION, READ_PCR + 10, 10) != 0 ||
	    memcmp(response + READ_SELECTION + 10, "\0\0\0\1\0\x20", 6) != 0)
		return false;
	memcpy(value, response + READ_DIGEST, SHA256_SIZE);
	return true;
}

bool tpm_present(void)
{
	return access(DEVICE, F_OK) == 0;
}

static enum tpm_result bind_open(int fd, const uint8_t digest[SHA256_SIZE])
{
	uint8_t command[sizeof EXTEND_PCR + SHA256_SIZE], response[EXTEND_RESPONSE];
	/* The old value (zero) and the digest, hashed together: what the TPM must have afterwards. */
	uint8_t chain[2 * SHA256_SIZE] = { 0 }, expected[SHA256_SIZE], value[SHA256_SIZE];

	if (!read_pcr(fd, value))
		return TPM_BANK_MISSING;
	if (memcmp(value, chain, SHA256_SIZE) != 0)
		return TPM_PCR_USED;
	memcpy(command, EXTEND_PCR, sizeof EXTEND_PCR);
	memcpy(command + sizeof EXTEND_PCR, digest, SHA256_SIZE);
	if (!submit(fd, command, sizeof command, response, sizeof response))
		return TPM_FAILED;
	memcpy(chain + SHA256_SIZE, digest, SHA256_SIZE);
	sha256(chain, sizeof chain, expected);
	/* The code alone proves nothing: an extend of an unallocated bank succeeds silently. */
	if (!read_pcr(fd, value) || memcmp(value, expected, SHA256_SIZE) != 0)
		return TPM_BANK_MISSING;
	return TPM_OK;
}

enum tpm_result tpm_bind(const uint8_t digest[SHA256_SIZE])
{
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	enum tpm_result result;

	if (fd < 0)
		return TPM_FAILED;
	result = bind_open(fd, digest);
	close(fd);
	return result;
}
