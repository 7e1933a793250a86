# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
#
# boot.sh ROOT: lets systemd be the first process of namespaces, in a Debian in
# ROOT. Called first to put itself into a group of its own, and then again in a
# namespace whose groups begin there, with a second argument.
set -eu
if [ $# -eq 1 ]; then
	mount --make-rprivate /
	mount -t cgroup2 cgroup2 /mnt
	mkdir -p "/mnt/hwvtpm-test-$$"
	echo $$ >"/mnt/hwvtpm-test-$$/cgroup.procs"
	umount /mnt
	exec unshare --mount --pid --cgroup --uts --ipc --fork --kill-child /bin/sh -euc "$BOOT" sh "$1" inside
fi
mount --make-rprivate /
cd "$1"
mount --bind . .
cd "$1"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for dir in run dev tmp; do
	mount -t tmpfs -o mode=755 tmpfs $dir
done
mkdir dev/shm dev/pts dev/mqueue dev/hugepages
ln -s /proc/self/fd dev/fd
for node in null zero full random urandom tty ptmx; do
	: >dev/$node
	mount --bind /dev/$node dev/$node
done
pivot_root . mnt
umount -l /mnt
# Credentials reach services by mounts that are made elsewhere.
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=null --show-status=no
