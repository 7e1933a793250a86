# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
#
# host.sh DIR CACHE BUILD: the first process of the host's namespaces. They end
# with it, and it ends with its standard input or libvirtd.
set -eu
umask 022
mount --make-rprivate /
mount -t proc proc /proc

# The three folders may be anywhere, also below one that is covered here, so they
# are gathered before anything is.
stage=$1/stage
mkdir "$stage"
mount -t tmpfs -o mode=755 tmpfs "$stage"
mkdir "$stage/host" "$stage/cache" "$stage/build" "$stage/etc"
mount --bind "$1" "$stage/host"
mount --bind "$2" "$stage/cache"
# Copies: other users must get at them, libvirt changes whom a machine's kernel
# belongs to, and the originals may be built anew meanwhile.
for name in coprocd hwvtpm-engine hwvtpm-swtpm hwvtpm-libvirt-hook vhost-user-vtpm; do
	install -m 0755 "$3/$name" "$stage/build"
done
install -m 0644 "$3/guest.cpio" "$2/kernel-6.12/vmlinuz" "$stage/build"
mount --move "$stage" /mnt
chmod -R a+rX /mnt/host

mkdir -p /var/lib/libvirt /var/cache/libvirt
for dir in /run /var/cache/libvirt; do
	mount -t tmpfs -o mode=755 tmpfs $dir
done
mount --bind /mnt/host/lib /var/lib/libvirt
mount --bind /mnt/host/log /var/log
if [ -d /usr/lib/x86_64-linux-gnu/qemu ]; then
	mount -t tmpfs tmpfs /usr/lib/x86_64-linux-gnu/qemu
fi

cp -a /etc/. /mnt/etc
mount --bind /mnt/etc /etc
rm -rf /etc/libvirt /etc/hwvtpm
ln -s /mnt/host/etc/libvirt /mnt/host/etc/hwvtpm /etc

# The users of libvirt's, swtpm's and our own packages, whether they are there or
# not. libvirt looks them up even where it does not need them.
group() {
	grep -q "^$1:" /etc/group || echo "$1:x:$2:" >>/etc/group
}
user() {
	gid=$(sed -n "s/^$3:[^:]*:\([0-9]*\):.*/\1/p" /etc/group)
	grep -q "^$1:" /etc/passwd || echo "$1:x:$2:$gid::/nonexistent:/usr/sbin/nologin" >>/etc/passwd
}
group kvm 64054
group libvirt-qemu 64055
group tss 64057
user libvirt-qemu 64055 kvm
user tss 64057 tss
# swtpm's user is let at the card by the group of coprocd's socket.
sed -i '/^hwvtpm:/d' /etc/group /etc/passwd
echo hwvtpm:x:64056:tss >>/etc/group
user hwvtpm 64056 hwvtpm

/mnt/build/coprocd --store /mnt/host/card --socket /mnt/host/coprocd.sock --engine /mnt/build/hwvtpm-engine \
	--worker-uid -1 --admin-uid tss 2>/mnt/host/log/coprocd.log &
while ! chgrp hwvtpm /mnt/host/coprocd.sock 2>/dev/null; do
	kill -0 $! # else it has ended, and so does this
	sleep 0.1
done

exec 3<&0
PATH=/mnt/host/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin libvirtd >/mnt/host/log/libvirtd.log 2>&1 &
libvirtd=$!
{
	cat <&3 >/dev/null
	kill -KILL $libvirtd
} &
# The first process of a namespace waits for all orphans; libvirtd does not.
wait $libvirtd
