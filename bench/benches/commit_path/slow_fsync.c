/*
 * A slow disk for one process: every fsync and fdatasync takes longer by a
 * given time, as it does on laptops and on volumes in a network.
 *
 * Loaded before libc (LD_PRELOAD). It waits after the real call, so that all
 * that was to be durable is when the call returns. Programs that the process
 * starts are not slowed: both variables are gone before main() runs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

typedef int sync_function(int);

static sync_function *real_fsync, *real_fdatasync;
static struct timespec delay;

__attribute__((constructor)) static void prepare(void)
{
	const char *text = getenv(DELAY_VARIABLE);
	long long us = text ? atoll(text) : 0;

	delay.tv_sec = us / 1000000;
	delay.tv_nsec = us % 1000000 * 1000;
	real_fsync = (sync_function *)dlsym(RTLD_NEXT, "fsync");
	real_fdatasync = (sync_function *)dlsym(RTLD_NEXT, "fdatasync");
	unsetenv(DELAY_VARIABLE);
	unsetenv("LD_PRELOAD");
}

static int slowly(sync_function *real, int file)
{
	int result = real(file);
	int error = errno;
	struct timespec left = delay;

	while (nanosleep(&left, &left) == -1 && errno == EINTR)
		;
	errno = error;
	return result;
}

int fsync(int file)
{
	return slowly(real_fsync, file);
}

int fdatasync(int file)
{
	return slowly(real_fdatasync, file);
}
