/* SPDX-License-Identifier: Apache-2.0 */

#ifndef HWVTPM_SANDBOX_H
#define HWVTPM_SANDBOX_H

/* What the constructor did. All zero in a process that it left alone. */
struct sandbox_report {
    int landlock; /* version of the ABI in force, 0: the kernel has none */
    int seccomp;  /* the filter is in force */
    int locked;   /* memory is locked */
};

extern struct sandbox_report sandbox_done;

/* Each returns 0, or a negative errno. */
int sandbox_landlock(void); /* or the version of the ABI, 0: not there */
int sandbox_seccomp(void);

#endif
