#include "initdata.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER 16
#define DISK_NAME_MAX 16

static const char MAGIC[8] = { 'C', 'S', 'I', 'N', 'I', 'T', 'D', '1' };

static bool read_fully(int fd, uint8_t *into, size_t length)
{
	while (length > 0) {
		ssize_t got = read(fd, into, length);

		if (got <= 0)
			return false;
		into += got;
		length -= (size_t)got;
	}
	return true;
}

/* True when /sys/block/<disk>/serial says "initdata"; virtio pads nothing and the kernel adds no newline. */
static bool is_initdata(const char *disk)
{
	char path[64] = "/sys/block/", serial[32] = { 0 };
	ssize_t got;
	int fd;

	strcat(path, disk);
	strcat(path, "/serial");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	got = read(fd, serial, sizeof serial - 1);
	close(fd);
	if (got > 0 && serial[got - 1] == '\n')
		serial[got - 1] = '\0';
	return got > 0 && strcmp(serial, "initdata") == 0;
}

static enum initdata_result find_disk(char path[])
{
	enum initdata_result result = INITDATA_MISSING;
	DIR *disks = opendir("/sys/block");
	const struct dirent *entry;

	if (disks == NULL)
		return INITDATA_MISSING;
	while ((entry = readdir(disks)) != NULL) {
		if (strncmp(entry->d_name, "vd", 2) != 0 || strlen(entry->d_name) >= DISK_NAME_MAX ||
		    !is_initdata(entry->d_name))
			continue;
		if (result == INITDATA_OK) {
			result = INITDATA_DUPLICATE;
			break;
		}
		strcpy(path, "/dev/");
		strcat(path, entry->d_name);
		result = INITDATA_OK;
	}
	closedir(disks);
	return result;
}

static enum initdata_result read_disk(int fd, struct initdata *out)
{
	uint8_t header[HEADER];
	uint64_t length = 0;

	if (!read_fully(fd, header, sizeof header) || memcmp(header, MAGIC, sizeof MAGIC) != 0)
		return INITDATA_INVALID;
	for (int i = 7; i >= 0; i--)
		length = length << 8 | header[sizeof MAGIC + i];
	if (length == 0 || length > INITDATA_MAX)
		return INITDATA_INVALID;
	out->length = length;
	out->toml = malloc(length);
	if (out->toml == NULL || !read_fully(fd, out->toml, length))
		return INITDATA_INVALID;
	return INITDATA_OK;
}

enum initdata_result initdata_read(struct initdata *out)
{
	char path[DISK_NAME_MAX + 8];
	enum initdata_result result = find_disk(path);
	int fd;

	if (result != INITDATA_OK)
		return result;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return INITDATA_INVALID;
	result = read_disk(fd, out);
	close(fd);
	return result;
}

int initdata_publish(const struct initdata *initdata)
{
	size_t at = 0;
	int fd;

	if (mkdir("/run/caisson", 0700) < 0)
		return -1;
	fd = open("/run/caisson/initdata.toml", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
	if (fd < 0)
		return -1;
	while (at < initdata->length) {
		ssize_t put = write(fd, initdata->toml + at, initdata->length - at);

		if (put <= 0)
			break;
		at += (size_t)put;
	}
	close(fd);
	return at == initdata->length ? 0 : -1;
}
