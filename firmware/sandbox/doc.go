// SPDX-License-Identifier: Apache-2.0

// Package sandbox shuts a worker in. A program that imports it, for its effect
// alone, and is started with --worker as its first argument, is inside before
// its first line of Go runs:
//
//   - no new privileges, no core dump, no look into its memory for others of its
//     own user, at most 64 descriptors, files of at most 4 MiB, and 1 GiB of memory
//     that could be written to, of which a worker touches a hundredth;
//   - Landlock with nothing permitted: no path, no TCP port, no abstract socket,
//     no signal to others. What the kernel does not have yet is left out, and a
//     kernel without Landlock is reported, not refused;
//   - a seccomp filter that permits computing, waiting, memory that is never
//     code, threads, and talking over descriptors that are open. Opening by name
//     fails with EACCES, because libraries try; nearly all else kills the process;
//   - no capability but CAP_IPC_LOCK, if it had that;
//   - memory locked page by page as it is touched, where RLIMIT_MEMLOCK is
//     unlimited or does not matter;
//   - descriptors above 3, the supervisor channel, closed, and OpenSSL started
//     without its configuration file.
//
// A worker whose sandbox cannot be set up writes why to its standard error and
// ends with exit code 77. The filter permits no process. The kernel limits threads
// per user, so that one worker would use up those of others: there are at most 64
// if the second argument is --own-user, and as many as the service may have if not.
//
// This is one of two packages with cgo, because a Go program has threads, each
// of which would have to be shut in, before it can do anything.
package sandbox
