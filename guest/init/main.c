/*
 * PID 1 of the guest. In order: mounts, kernel settings, the initdata bound to PCR 8 before anything may parse it, the
 * agent. It knows two platforms by the (measured) command line; every failure is one console code and power off.
 */
#include "console.h"
#include "initdata.h"
#include "mounts.h"
#include "sha256.h"
#include "supervise.h"
#include "tpm.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct command_line {
	bool tpm, none;
	/* caisson.debug: the agent's output on the console. It is on the measured command line or it is not there. */
	bool debug;
};

static bool read_command_line(struct command_line *out)
{
	static char text[4096];
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return false;
	got = read(fd, text, sizeof text - 1);
	close(fd);
	if (got <= 0)
		return false;
	for (char *save, *word = strtok_r(text, " \n", &save); word != NULL; word = strtok_r(NULL, " \n", &save)) {
		out->tpm |= strcmp(word, "caisson.platform=tpm") == 0;
		out->none |= strcmp(word, "caisson.platform=none") == 0;
		out->debug |= strcmp(word, "caisson.debug") == 0;
	}
	return out->tpm != out->none;
}

static void measure(const struct initdata *initdata)
{
	uint8_t digest[SHA256_SIZE];

	sha256(initdata->toml, initdata->length, digest);
	switch (tpm_bind(digest)) {
	case TPM_OK:
		return;
	case TPM_PCR_USED:
		console_refuse(CODE_TPM_PCR_USED);
	case TPM_BANK_MISSING:
		console_refuse(CODE_TPM_BANK_MISSING);
	case TPM_FAILED:
		console_refuse(CODE_TPM_FAILED);
	}
	console_refuse(CODE_TPM_FAILED);
}

/* The order is the promise: read once, measure, and only then leave the bytes where the agent can find them. */
static void take_initdata(const struct command_line *line)
{
	struct initdata initdata = { NULL, 0 };

	switch (initdata_read(&initdata)) {
	case INITDATA_OK:
		break;
	case INITDATA_MISSING:
		/* Without attestation nothing depends on it. */
		if (line->none)
			return;
		console_refuse(CODE_INITDATA_MISSING);
	case INITDATA_DUPLICATE:
		console_refuse(CODE_INITDATA_DUPLICATE);
	case INITDATA_INVALID:
		console_refuse(CODE_INITDATA_INVALID);
	}
	if (tpm_present()) {
		measure(&initdata);
		console_say(CODE_INITDATA_MEASURED);
	} else if (line->none) {
		console_say(CODE_INITDATA_UNMEASURED);
	} else {
		console_refuse(CODE_TPM_MISSING);
	}
	if (initdata_publish(&initdata) < 0)
		console_refuse(CODE_INITDATA_UNWRITABLE);
}

int main(void)
{
	static const struct rlimit no_core = { 0, 0 };
	struct command_line line = { false, false, false };
	sigset_t all;

	/* PID 1 is told nothing by signals. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	umask(022);
	if (mount_all() < 0)
		console_refuse(CODE_MOUNT_FAILED);
	console_say(CODE_INIT_START);
	setrlimit(RLIMIT_CORE, &no_core);
	set_sysctls();
	if (sethostname("caisson", 7) < 0 || !read_command_line(&line))
		console_refuse(CODE_PLATFORM_UNKNOWN);
	take_initdata(&line);
	supervise(line.debug);
}
