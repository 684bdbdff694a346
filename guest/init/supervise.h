#ifndef CAISSON_SUPERVISE_H
#define CAISSON_SUPERVISE_H

#include <stdbool.h>

/*
 * Starts the agent with a clean environment and waits for it, reaping whatever else is orphaned on the way. When the
 * agent ends, the machine ends: with status 0 it was asked to, anything else is its death.
 * `to_console` keeps the agent's output on the console; otherwise it goes nowhere, because the host reads the console.
 */
_Noreturn void supervise(bool to_console);

#endif
