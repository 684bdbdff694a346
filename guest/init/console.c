#include "console.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

static const char *const TEXT[] = {
#define X(name, text) [name] = "caisson: " text "\r\n",
	CONSOLE_CODES(X)
#undef X
};

void console_say(enum console_code code)
{
	int fd = open("/dev/console", O_WRONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return;
	/* One write, so that a line of the agent cannot fall into the middle. A full console is not worth a retry. */
	if (write(fd, TEXT[code], strlen(TEXT[code])) < 0) {
		/* Nobody is left to tell. */
	}
	close(fd);
}

_Noreturn void power_off(void)
{
	console_say(CODE_POWEROFF);
	kill(-1, SIGKILL);
	sync();
	reboot(RB_POWER_OFF);
	/* Without ACPI there is no power to turn off; PID 1 must not return either way. */
	for (;;)
		pause();
}

_Noreturn void console_refuse(enum console_code code)
{
	console_say(code);
	power_off();
}
