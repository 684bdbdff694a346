/*
 * The serial console is read by the host, so PID 1 says nothing on it but one of these codes, each as a line
 * "caisson: <code>". Reasons stay inside: a failure is told apart by its code alone.
 */
#ifndef CAISSON_CONSOLE_H
#define CAISSON_CONSOLE_H

/* X(name, text): the whole vocabulary of PID 1. The agent has its own, printed the same way. */
#define CONSOLE_CODES(X)                                                                                               \
	X(CODE_INIT_START, "init-start")                                                                               \
	X(CODE_MOUNT_FAILED, "mount-failed")                                                                           \
	X(CODE_PLATFORM_UNKNOWN, "platform-unknown")                                                                   \
	X(CODE_INITDATA_MISSING, "initdata-missing")                                                                   \
	X(CODE_INITDATA_DUPLICATE, "initdata-duplicate")                                                               \
	X(CODE_INITDATA_INVALID, "initdata-invalid")                                                                   \
	X(CODE_INITDATA_UNWRITABLE, "initdata-unwritable")                                                             \
	X(CODE_INITDATA_MEASURED, "initdata-measured")                                                                 \
	X(CODE_INITDATA_UNMEASURED, "initdata-unmeasured")                                                             \
	X(CODE_TPM_MISSING, "tpm-missing")                                                                             \
	X(CODE_TPM_FAILED, "tpm-failed")                                                                               \
	X(CODE_TPM_PCR_USED, "tpm-pcr-used")                                                                           \
	X(CODE_TPM_BANK_MISSING, "tpm-bank-missing")                                                                   \
	X(CODE_AGENT_START, "agent-start")                                                                             \
	X(CODE_AGENT_DIED, "agent-died")                                                                               \
	X(CODE_POWEROFF, "poweroff")

enum console_code {
#define X(name, text) name,
	CONSOLE_CODES(X)
#undef X
};

/* Prints the code; does nothing while there is no console device. */
void console_say(enum console_code code);

/* Prints the code, then "poweroff", ends every process and turns the machine off. */
_Noreturn void console_refuse(enum console_code code);

/* Ends every process and turns the machine off without an accusation: the agent asked for it. */
_Noreturn void power_off(void);

#endif
