#define _GNU_SOURCE /* close_range */
#include "supervise.h"

#include "console.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * No flag of V8 that its code cache depends on (such as --disallow-code-generation-from-strings) stands here: Node would
 * have to compile its own modules again at every start, 0.4 s of 2.2 under emulation.
 */
static char *const ARGV[] = {
	"node",
	"--disable-proto=delete",
	"--max-old-space-size=192",
	"/usr/lib/caisson/agent.js",
	NULL,
};

static char *const ENVIRONMENT[] = { "PATH=/usr/bin:/usr/sbin", "HOME=/run", "LANG=C", NULL };

/* In the child. Never returns to the caller's code. */
_Noreturn static void become_agent(bool to_console)
{
	sigset_t none;
	int input = open("/dev/null", O_RDONLY), output = open(to_console ? "/dev/console" : "/dev/null", O_WRONLY | O_NOCTTY);

	if (input < 0 || output < 0 || dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0)
		_exit(126);
	close_range(3, ~0U, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	execve("/usr/lib/caisson/node", ARGV, ENVIRONMENT);
	_exit(127);
}

_Noreturn void supervise(bool to_console)
{
	pid_t agent;

	console_say(CODE_AGENT_START);
	agent = fork();
	if (agent < 0)
		console_refuse(CODE_AGENT_DIED);
	if (agent == 0)
		become_agent(to_console);
	for (;;) {
		int status;
		pid_t pid = wait(&status);

		if (pid < 0 && errno == EINTR)
			continue;
		if (pid >= 0 && pid != agent)
			continue;
		if (pid == agent && WIFEXITED(status) && WEXITSTATUS(status) == 0)
			power_off();
		console_refuse(CODE_AGENT_DIED);
	}
}
