#ifndef CAISSON_MOUNTS_H
#define CAISSON_MOUNTS_H

/* Mounts the kernel's file systems and the writable tmpfs. 0, or -1 when one that the guest needs failed. */
int mount_all(void);

/* Kernel settings that no part of the guest has a reason to change. Missing ones belong to features not built in. */
void set_sysctls(void);

#endif
