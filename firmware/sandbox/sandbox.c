/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The sandbox is entered before main, while the process has one thread and has
 * read nothing: every thread of the Go runtime inherits it, and there is no
 * moment at which a worker handles foreign bytes outside of it.
 */

#define _GNU_SOURCE
#include "sandbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <linux/capability.h>
#include <openssl/crypto.h>

/* EX_NOPERM of sysexits.h: what a worker without a sandbox ends with. */
#define EXIT_NO_SANDBOX 77

/* A worker has about ten descriptors, most of them of the Go runtime. */
#define MAX_DESCRIPTORS 64

/* A worker has about ten threads. */
#define MAX_THREADS 64

/* A worker touches 10 MiB. The kernel counts what could be written to, such as whole
 * stacks of threads: 110 MiB, and 8 MiB for each thread more. */
#define MAX_MEMORY (1u << 30)

/* More than any file that a worker is given may ever have. */
#define MAX_FILE (4u << 20)

/* The supervisor channel: the last descriptor that a worker starts with. */
#define SUPERVISOR_FD 3

struct sandbox_report sandbox_done;

static void must(int ok, const char *what)
{
    if (ok)
        return;
    dprintf(STDERR_FILENO, "error sandbox: %s: %m\n", what);
    _exit(EXIT_NO_SANDBOX);
}

/* A limit is lowered, never raised. */
static void limit(int resource, rlim_t value, const char *what)
{
    struct rlimit r;

    must(getrlimit(resource, &r) == 0, what);
    if (value < r.rlim_max)
        r.rlim_max = value;
    r.rlim_cur = r.rlim_max;
    must(setrlimit(resource, &r) == 0, what);
}

/*
 * Locks what is touched, and no more. The kernel counts address space, of which
 * the Go runtime reserves a lot, and would refuse a mapping that is over
 * RLIMIT_MEMLOCK some time later. So there has to be no limit, or the privilege
 * to ignore it; a mapping that is over every limit but that tells.
 */
static int lock_memory(void)
{
    const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    const size_t vast = (size_t)1 << 40;
    void *p;

    (void)setrlimit(RLIMIT_MEMLOCK, &unlimited);
    if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0)
        return 0;
    p = mmap(NULL, vast, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        munlockall();
        return 0;
    }
    munmap(p, vast);
    return 1;
}

/* Of root's capabilities only that of ignoring RLIMIT_MEMLOCK is kept. */
static int drop_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    const unsigned int keep = 1u << CAP_IPC_LOCK;

    if (syscall(SYS_capget, &head, data) != 0)
        return -1;
    data[0].permitted &= keep;
    data[0].effective &= keep;
    data[1].permitted = data[1].effective = 0;
    data[0].inheritable = data[1].inheritable = 0;
    return (int)syscall(SYS_capset, &head, data);
}

static void enter(int own_user)
{
    int rc;

    /* OpenSSL would read its configuration file at its first use. */
    must(OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) == 1, "start OpenSSL");
    must(close_range(SUPERVISOR_FD + 1, ~0u, 0) == 0, "close inherited descriptors");
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "set no_new_privs");
    must(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0, "forbid core dumps");
    limit(RLIMIT_CORE, 0, "limit core size");
    limit(RLIMIT_NOFILE, MAX_DESCRIPTORS, "limit descriptors");
    limit(RLIMIT_FSIZE, MAX_FILE, "limit file size");
    limit(RLIMIT_DATA, MAX_MEMORY, "limit memory");
    if (own_user) /* the kernel counts per user */
        limit(RLIMIT_NPROC, MAX_THREADS, "limit threads");
    sandbox_done.locked = lock_memory();
    must(drop_capabilities() == 0, "drop capabilities");
    rc = sandbox_landlock();
    must(rc >= 0, "landlock");
    sandbox_done.landlock = rc;
    must(sandbox_seccomp() == 0, "seccomp");
    sandbox_done.seccomp = 1;
    malloc_trim(0); /* the making of the filter took more heap than a TPM does */
}

__attribute__((constructor)) static void sandbox_constructor(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--worker") == 0)
        enter(argc > 2 && strcmp(argv[2], "--own-user") == 0);
}
