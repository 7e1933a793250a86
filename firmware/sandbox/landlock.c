/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Landlock with no rule: everything that it can handle is denied. The numbers
 * are spelled out because a worker runs on kernels that are newer than the
 * headers it was built with (Linux, Documentation/userspace-api/landlock.rst).
 */

#define _GNU_SOURCE
#include "sandbox.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <sys/syscall.h>

/* The same on every architecture. */
#define NR_LANDLOCK_CREATE_RULESET 444
#define NR_LANDLOCK_RESTRICT_SELF 446

#define CREATE_RULESET_VERSION 1u

struct ruleset {
    uint64_t fs;     /* ABI 1 */
    uint64_t net;    /* ABI 4 */
    uint64_t scoped; /* ABI 6 */
};

/* What each ABI version brought: the first so many bits of each kind. */
static const struct {
    uint8_t fs, net, scoped;
} known[] = {
    {0, 0, 0},
    {13, 0, 0}, /* 1: files */
    {14, 0, 0}, /* 2: and linking across directories */
    {15, 0, 0}, /* 3: and truncating */
    {15, 2, 0}, /* 4: and TCP */
    {16, 2, 0}, /* 5: and device ioctls */
    {16, 2, 2}, /* 6: and abstract sockets and signals to processes outside */
};

#define NEWEST ((int)(sizeof(known) / sizeof(known[0])) - 1)

static uint64_t bits(unsigned int n)
{
    return (UINT64_C(1) << n) - 1;
}

int sandbox_landlock(void)
{
    struct ruleset deny;
    long abi = syscall(NR_LANDLOCK_CREATE_RULESET, NULL, (size_t)0, CREATE_RULESET_VERSION);
    int fd, use;

    if (abi <= 0)
        return 0; /* too old, not built in, or switched off */
    use = abi < NEWEST ? (int)abi : NEWEST;
    deny.fs = bits(known[use].fs);
    deny.net = bits(known[use].net);
    deny.scoped = bits(known[use].scoped);
    /* A kernel accepts the fields that it does not know if they are zero. */
    fd = (int)syscall(NR_LANDLOCK_CREATE_RULESET, &deny, sizeof(deny), 0u);
    if (fd < 0)
        return -errno;
    if (syscall(NR_LANDLOCK_RESTRICT_SELF, fd, 0u) != 0) {
        int err = errno;

        close(fd);
        errno = err;
        return -err;
    }
    close(fd);
    return use;
}
