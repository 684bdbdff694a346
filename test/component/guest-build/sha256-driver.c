/* Prints the SHA-256 of standard input as PID 1 computes it. */
#include "../../../guest/init/sha256.h"

#include <stdio.h>

int main(void)
{
	static uint8_t message[2 << 20];
	uint8_t digest[SHA256_SIZE];

	sha256(message, fread(message, 1, sizeof message, stdin), digest);
	for (int i = 0; i < SHA256_SIZE; i++)
		printf("%02x", digest[i]);
	return 0;
}
