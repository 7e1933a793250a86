#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# libvirt.sh DIR [PATH]: runs the machine's virtlogd and libvirtd where they can
# meet no others and leave nothing behind: the first process of namespaces of its
# own (unshare -mpni), with layers in DIR over /etc and /var. PATH is where
# libvirtd looks for programs such as swtpm first. DIR/etc is copied into /etc.
set -euo pipefail
dir=$1

mount -t tmpfs tmpfs /run
for d in etc var; do
	mkdir -p "$dir/layer/$d" "$dir/work/$d"
	mount -t overlay overlay -o "lowerdir=/$d,upperdir=$dir/layer/$d,workdir=$dir/work/$d" "/$d"
done
cp -r "$dir/etc/." /etc
mkdir -p /etc/libvirt /var/log/libvirt
# libvirt looks these up, whoever QEMU runs as.
getent group kvm >/dev/null || echo kvm:x:64054: >>/etc/group
getent group libvirt-qemu >/dev/null || echo libvirt-qemu:x:64055: >>/etc/group
getent passwd libvirt-qemu >/dev/null ||
	echo libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin >>/etc/passwd
# What libvirt would change of files is their owner, and these are not its own.
cat >/etc/libvirt/qemu.conf <<-CONF
	user = "root"
	group = "root"
	security_driver = "none"
	dynamic_ownership = 0
	remember_owner = 0
	cgroup_controllers = [ ]
	namespaces = [ ]
CONF
[ -z "${2:-}" ] || export PATH=$2:$PATH
virtlogd --daemon
libvirtd --daemon
# bash buries what daemons leave; libvirt waits for that.
while :; do
	sleep 1
done
