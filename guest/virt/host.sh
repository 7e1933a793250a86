# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
#
# host.sh DIR CACHE BUILD: the first process of the host's namespaces.
set -eu
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt
for dir in /run /mnt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
	mount -t tmpfs -o mode=755 tmpfs $dir
done
mkdir /mnt/host /mnt/cache /mnt/build
mount --bind "$1" /mnt/host
mount --bind "$2" /mnt/cache
mount --bind "$3" /mnt/build
mount --bind /mnt/host/etc /etc/libvirt
if [ -d /usr/lib/x86_64-linux-gnu/qemu ]; then
	mount -t tmpfs tmpfs /usr/lib/x86_64-linux-gnu/qemu
fi

# The users of libvirt's own packages, and of ours.
cp /etc/passwd /etc/group /mnt/host/
has() { grep -q "^$2:" "/mnt/host/$1"; }
has group kvm || echo 'kvm:x:64054:' >>/mnt/host/group
for user in libvirt-qemu:64055 hwvtpm:64056; do
	name=${user%:*} id=${user#*:}
	has group "$name" || echo "$name:x:$id:" >>/mnt/host/group
	if [ "$name" = libvirt-qemu ]; then
		group=$(sed -n 's/^kvm:[^:]*:\([0-9]*\):.*/\1/p' /mnt/host/group)
	else
		group=$id
	fi
	has passwd "$name" || echo "$name:x:$id:$group::/nonexistent:/usr/sbin/nologin" >>/mnt/host/passwd
done
mount --bind /mnt/host/passwd /etc/passwd
mount --bind /mnt/host/group /etc/group

/mnt/build/coprocd --store /mnt/host/card --socket /mnt/host/coprocd.sock --engine /mnt/build/hwvtpm-engine \
	--worker-uid -1 2>/mnt/host/log/coprocd.log &
chmod 0755 /mnt/host
while ! chgrp hwvtpm /mnt/host/coprocd.sock 2>/dev/null; do sleep 0.1; done
libvirtd 2>/mnt/host/log/libvirtd.log &
# The first process of a namespace waits for all orphans; libvirtd does not.
wait $!
