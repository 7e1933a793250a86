/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The system calls of a worker: what the Go runtime, the C library, libtpms and
 * OpenSSL need to compute, to wait, and to talk over the descriptors they have.
 * Any other kills the process. Those that a library tries and can do without get
 * an error instead.
 */

#define _GNU_SOURCE
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <seccomp.h>

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41 /* the Go runtime names its mappings */
#endif

static const int allowed[] = {
    /* descriptors that are there */
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev),
    SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(recvfrom), SCMP_SYS(sendto),
    SCMP_SYS(shutdown), SCMP_SYS(getsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
    SCMP_SYS(close), SCMP_SYS(dup), SCMP_SYS(fstat),
    SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(ftruncate), SCMP_SYS(fallocate),
    SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(msync),

    /* waiting */
    SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2), SCMP_SYS(epoll_wait), SCMP_SYS(eventfd2),
    SCMP_SYS(futex), SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(restart_syscall),
    SCMP_SYS(sched_yield),

    /* memory; mmap and mprotect are below */
    SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(mincore), SCMP_SYS(brk),
    SCMP_SYS(mlock), SCMP_SYS(mlock2), SCMP_SYS(munlock),

    /* threads and their signals; clone and tgkill are below */
    SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(set_robust_list), SCMP_SYS(set_tid_address),
    SCMP_SYS(rseq), SCMP_SYS(sigaltstack), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn), SCMP_SYS(sched_getaffinity), SCMP_SYS(gettid), SCMP_SYS(getpid),

    /* time, chance, and who one is */
    SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(gettimeofday), SCMP_SYS(time),
    SCMP_SYS(getrandom), SCMP_SYS(getcpu), SCMP_SYS(getuid), SCMP_SYS(geteuid),
    SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(uname), SCMP_SYS(sysinfo),
    SCMP_SYS(getrlimit), SCMP_SYS(getrusage), SCMP_SYS(umask),
};

static const struct {
    int nr, error;
} refused[] = {
    /* files by name: the Go runtime looks for huge pages and cgroups, OpenSSL
     * and the C library for their configuration */
    {SCMP_SYS(open), EACCES}, {SCMP_SYS(openat), EACCES}, {SCMP_SYS(openat2), EACCES},
    {SCMP_SYS(stat), EACCES}, {SCMP_SYS(lstat), EACCES}, {SCMP_SYS(statx), EACCES},
    {SCMP_SYS(access), EACCES}, {SCMP_SYS(faccessat), EACCES}, {SCMP_SYS(faccessat2), EACCES},
    {SCMP_SYS(readlink), EACCES}, {SCMP_SYS(readlinkat), EACCES}, {SCMP_SYS(getcwd), EACCES},
    /* a path may not be looked at, so fstat by this way is not to be had either */
    {SCMP_SYS(newfstatat), EACCES},
    /* the C library then uses clone, whose flags a filter can read */
    {SCMP_SYS(clone3), ENOSYS},
    {SCMP_SYS(membarrier), ENOSYS},
    /* is it a terminal? */
    {SCMP_SYS(ioctl), ENOTTY},
};

/* cmp is one condition on an argument; with SCMP_CMP_MASKED_EQ a is the mask. */
#define CMP(n, how, x, y) {.arg = (n), .op = (how), .datum_a = (x), .datum_b = (y)}
#define EQ(n, x) CMP(n, SCMP_CMP_EQ, x, 0)
#define NONE CMP(0, SCMP_CMP_GE, 0, 0)

static const struct {
    int nr;
    struct scmp_arg_cmp cmp[2];
} conditional[] = {
    /* no code but what is there, and no memory that RLIMIT_DATA does not count: what
     * is shared is a file */
    {SCMP_SYS(mmap), {CMP(2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0), CMP(3, SCMP_CMP_MASKED_EQ, MAP_SHARED, 0)}},
    {SCMP_SYS(mmap), {CMP(2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0), CMP(3, SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, 0)}},
    {SCMP_SYS(mprotect), {CMP(2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0), NONE}},
    /* threads, no processes */
    {SCMP_SYS(clone), {CMP(0, SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD), NONE}},
    {SCMP_SYS(fcntl), {EQ(1, F_GETFD), NONE}},
    {SCMP_SYS(fcntl), {EQ(1, F_SETFD), NONE}},
    {SCMP_SYS(fcntl), {EQ(1, F_GETFL), NONE}},
    {SCMP_SYS(fcntl), {EQ(1, F_SETFL), NONE}},
    {SCMP_SYS(fcntl), {EQ(1, F_DUPFD_CLOEXEC), NONE}},
    {SCMP_SYS(fcntl), {EQ(1, F_GET_SEALS), NONE}},
    /* how long a read may take */
    {SCMP_SYS(setsockopt), {EQ(1, SOL_SOCKET), EQ(2, SO_RCVTIMEO)}},
    /* hardening once more does no harm */
    {SCMP_SYS(prctl), {EQ(0, PR_SET_DUMPABLE), EQ(1, 0)}},
    {SCMP_SYS(prctl), {EQ(0, PR_SET_NO_NEW_PRIVS), NONE}},
    {SCMP_SYS(prctl), {EQ(0, PR_SET_NAME), NONE}},
    {SCMP_SYS(prctl), {EQ(0, PR_SET_VMA), NONE}},
    /* one's own limits: reading all, setting that of core dumps */
    {SCMP_SYS(prlimit64), {EQ(0, 0), EQ(2, 0)}},
    {SCMP_SYS(prlimit64), {EQ(0, 0), EQ(1, RLIMIT_CORE)}},
    {SCMP_SYS(setrlimit), {EQ(0, RLIMIT_CORE), NONE}},
};

/* Signals to oneself: the Go runtime preempts its threads with them. */
static int allow_own_signals(scmp_filter_ctx f)
{
    int rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));

    if (rc == 0)
        rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(kill), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
    return rc;
}

static int add_rules(scmp_filter_ctx f)
{
    size_t i;
    int rc = 0;

    for (i = 0; rc == 0 && i < LENGTH(allowed); i++)
        rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
    for (i = 0; rc == 0 && i < LENGTH(refused); i++)
        rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(refused[i].error), refused[i].nr, 0);
    for (i = 0; rc == 0 && i < LENGTH(conditional); i++) {
        unsigned int n = conditional[i].cmp[1].op == SCMP_CMP_GE ? 1 : 2;

        rc = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, conditional[i].nr, n, conditional[i].cmp);
    }
    return rc;
}

int sandbox_seccomp(void)
{
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int rc;

    if (!f) {
        errno = ENOMEM;
        return -ENOMEM;
    }
    /* a binary search: the common calls are many, and none is the last */
    rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (rc == 0)
        rc = seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (rc == 0)
        rc = add_rules(f);
    if (rc == 0)
        rc = allow_own_signals(f);
    if (rc == 0)
        rc = seccomp_load(f);
    seccomp_release(f);
    errno = -rc;
    return rc;
}
