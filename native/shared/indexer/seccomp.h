// The system calls that making an index needs when its files are open; every other one fails with EPERM.
#pragma once

// 0, or -1 with errno. Irrevocable, also across execve. Needs PR_SET_NO_NEW_PRIVS.
int restrict_system_calls();
