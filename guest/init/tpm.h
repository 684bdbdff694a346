/* The one thing PID 1 asks of the TPM: bind the initdata to PCR 8 before anything reads it. */
#ifndef CAISSON_TPM_H
#define CAISSON_TPM_H

#include "sha256.h"

#include <stdbool.h>

enum tpm_result {
	TPM_OK,
	/* The device does not answer, or answers with an error. */
	TPM_FAILED,
	/* PCR 8 was not zero: somebody extended it before us, and no verifier could accept the result. */
	TPM_PCR_USED,
	/* The TPM accepted the extend without changing the register: its SHA-256 bank is not allocated. */
	TPM_BANK_MISSING,
};

bool tpm_present(void);

/* Extends PCR 8 of the SHA-256 bank with the digest and reads it back. */
enum tpm_result tpm_bind(const uint8_t digest[SHA256_SIZE]);

#endif
