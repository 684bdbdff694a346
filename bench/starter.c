/*
 * Starts a program as containerd does, without a copy of the starter's memory, and prints the nanoseconds until its output
 * has ended and it has. Its output is thrown away; a failure of it is a failure of this.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
	posix_spawn_file_actions_t actions;
	char block[4096];
	int ends[2], status;
	pid_t child;

	if (argc < 2 || pipe2(ends, O_CLOEXEC) < 0)
		return 2;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
	posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
	long long start = now();

	if (posix_spawn(&child, argv[1], &actions, NULL, argv + 1, environ) != 0)
		return 1;
	close(ends[1]);
	while (read(ends[0], block, sizeof block) > 0)
		;
	if (waitpid(child, &status, 0) < 0 || status != 0)
		return 1;
	printf("%lld\n", now() - start);
	return 0;
}
