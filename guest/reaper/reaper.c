/*
 * PID 1 of the process namespace that the containers of a pod share (shareProcessNamespace): it holds the namespace while
 * containers come and go, and takes the exit status of processes whose parents are gone. Nothing inside can end it: the
 * kernel gives a namespace's first process no signal that it does not handle.
 */
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

int main(void)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	for (;;) {
		int caught;

		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		sigwait(&all, &caught);
	}
}
