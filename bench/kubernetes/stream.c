/*
 * TCP at full speed between two programs. `serve SOURCE SINK` pours zeros to who connects to the first port, and counts what
 * comes to the second; `read|write HOST PORT BYTES` is the client of either, and prints the nanoseconds from the first byte
 * until the last one has arrived.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char block[256 * 1024];

static void source(int client)
{
	while (write(client, block, sizeof block) > 0)
		;
}

/* The acknowledgement is one byte: everything has arrived. */
static void sink(int client)
{
	while (read(client, block, sizeof block) > 0)
		;
	(void)!write(client, block, 1);
}

static void serve(int port, void (*work)(int))
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4) < 0)
		exit(1);
	if (fork() != 0)
		return;
	for (;;) {
		int client = accept(listener, NULL, NULL);

		if (client < 0)
			continue;
		work(client);
		close(client);
	}
}

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc == 4 && strcmp(argv[1], "serve") == 0) {
		serve(atoi(argv[2]), source);
		serve(atoi(argv[3]), sink);
		puts("listening");
		fflush(stdout);
		pause();
		return 0;
	}
	if (argc != 5)
		return 2;
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[3])) };
	int server = socket(AF_INET, SOCK_STREAM, 0);
	long long left = atoll(argv[4]);

	inet_pton(AF_INET, argv[2], &address.sin_addr);
	if (connect(server, (struct sockaddr *)&address, sizeof address) < 0)
		return 1;
	int reads = strcmp(argv[1], "read") == 0;
	/* Without the handshake: the first block is on its way. */
	if (reads)
		left -= read(server, block, sizeof block);
	long long start = now();

	while (left > 0) {
		size_t want = left < (long long)sizeof block ? (size_t)left : sizeof block;
		ssize_t count = reads ? read(server, block, want) : write(server, block, want);

		if (count <= 0)
			return 1;
		left -= count;
	}
	if (!reads) {
		shutdown(server, SHUT_WR);
		if (read(server, block, 1) != 1)
			return 1;
	}
	printf("%lld\n", now() - start);
	return 0;
}
