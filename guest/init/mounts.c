#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCKED (MS_NOSUID | MS_NODEV | MS_NOEXEC)

struct mount_entry {
	const char *type, *target, *options;
	unsigned long flags;
};

/* In this order: later targets lie inside earlier ones. The root itself is read-only erofs on dm-verity. */
static const struct mount_entry MOUNTS[] = {
	{ "proc", "/proc", NULL, LOCKED },
	{ "sysfs", "/sys", NULL, LOCKED },
	{ "securityfs", "/sys/kernel/security", NULL, LOCKED },
	{ "configfs", "/sys/kernel/config", NULL, LOCKED },
	{ "cgroup2", "/sys/fs/cgroup", "nsdelegate", LOCKED },
	{ "devtmpfs", "/dev", "mode=0755", MS_NOSUID | MS_NOEXEC },
	{ "devpts", "/dev/pts", "gid=5,mode=0620,ptmxmode=0666", MS_NOSUID | MS_NOEXEC },
	{ "tmpfs", "/dev/shm", "mode=1777", LOCKED },
	{ "tmpfs", "/run", "mode=0755", LOCKED },
	{ "tmpfs", "/tmp", "mode=1777", LOCKED },
};

struct sysctl_entry {
	const char *path, *value;
};

static const struct sysctl_entry SYSCTLS[] = {
	/* Core dumps would carry secrets: the kernel is built without them, and this holds if that ever changes. */
	{ "kernel/core_pattern", "|/bin/false" },
	{ "fs/suid_dumpable", "0" },
	{ "kernel/kptr_restrict", "2" },
	{ "kernel/dmesg_restrict", "1" },
	{ "kernel/perf_event_paranoid", "3" },
	{ "kernel/unprivileged_bpf_disabled", "1" },
	{ "net/core/bpf_jit_harden", "2" },
	{ "kernel/panic_on_oops", "1" },
	{ "fs/protected_symlinks", "1" },
	{ "fs/protected_hardlinks", "1" },
	{ "fs/protected_fifos", "2" },
	{ "fs/protected_regular", "2" },
	/* Addresses and routes come from the agent, inside what policy allows, never from a neighbour on the wire. */
	{ "net/ipv6/conf/all/accept_ra", "0" },
	{ "net/ipv6/conf/default/accept_ra", "0" },
	{ "net/ipv6/conf/all/accept_redirects", "0" },
	{ "net/ipv6/conf/default/accept_redirects", "0" },
	{ "net/ipv4/conf/all/accept_redirects", "0" },
	{ "net/ipv4/conf/default/accept_redirects", "0" },
	{ "net/ipv4/conf/all/accept_source_route", "0" },
	{ "net/ipv4/conf/all/send_redirects", "0" },
};

static const char *const DEV_LINKS[][2] = {
	{ "/proc/self/fd", "/dev/fd" },
	{ "/proc/self/fd/0", "/dev/stdin" },
	{ "/proc/self/fd/1", "/dev/stdout" },
	{ "/proc/self/fd/2", "/dev/stderr" },
};

int mount_all(void)
{
	for (size_t i = 0; i < sizeof MOUNTS / sizeof MOUNTS[0]; i++) {
		const struct mount_entry *m = &MOUNTS[i];

		/* Only /dev/pts and /dev/shm lie on a writable file system and have to be made. */
		if (mkdir(m->target, 0755) < 0 && errno != EEXIST && errno != EROFS && errno != EPERM)
			return -1;
		if (mount(m->type, m->target, m->type, m->flags, m->options) < 0)
			return -1;
	}
	for (size_t i = 0; i < sizeof DEV_LINKS / sizeof DEV_LINKS[0]; i++)
		if (symlink(DEV_LINKS[i][0], DEV_LINKS[i][1]) < 0 && errno != EEXIST)
			return -1;
	/* No set-user-id program and no device node is in the root; say so to the kernel as well. */
	return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL);
}

void set_sysctls(void)
{
	char path[128];

	for (size_t i = 0; i < sizeof SYSCTLS / sizeof SYSCTLS[0]; i++) {
		strcpy(path, "/proc/sys/");
		strcat(path, SYSCTLS[i].path);
		int fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (write(fd, SYSCTLS[i].value, strlen(SYSCTLS[i].value)) < 0) {
			/* A value this kernel does not know: the built-in default stays. */
		}
		close(fd);
	}
}
