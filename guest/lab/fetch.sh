#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# fetch.sh: gets what hwvtpm's build, tests and demo need on a Debian machine.
#
#   guest/lab/fetch.sh [packages] [go] [qemu] [qemu-7.2] [kernel-6.12] [kernel-6.1]
#                      [tpm2-tools] [grub] [debian-12]
#
# Without arguments: everything. Packages of the machine's own release are
# installed when they are missing (as root). The rest is only unpacked, into
# the cache folder (.cache in the work tree, or $HWVTPM_CACHE):
#
#   bin/go, bin/gofmt           only if the machine's Go is older than go.mod asks
#   bin/qemu-system-x86_64      a QEMU that has vhost-user-test-device-pci
#   qemu/                       its files, if the machine has no such QEMU
#   bin/qemu-7.2, qemu-7.2/     Debian 12's QEMU with SeaBIOS and OVMF, whose own
#                               TPM devices the tests use
#   kernel-6.12/, kernel-6.1/   vmlinuz, headers (for make -C), modules, version
#   tpm2-tools/                 Debian 12's tpm2-tools and libraries, for guests
#   grub/                       boot.img and core.img, a boot loader for raw disks
#   debian-12/                  a minimal Debian 12 to install our packages into
#
# A run that finds everything is quiet. Two runs at once are safe: the second
# waits. A run that was cut off leaves nothing half-made behind.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
cache=${HWVTPM_CACHE:-$top/.cache}
recipe=1 # raise it when the layout of the cache changes

say() { echo "fetch: $*" >&2; }
die() {
	say "$*"
	exit 1
}
. "$here/aptbox.sh"

# What the machine itself needs: a C compiler, libtpms and libseccomp for the
# engine, make and libelf (for objtool) for the guest driver, and the peers and
# tools that the tests compare with; what builds and checks our packages; libvirt,
# of which nothing is started.
packages=(gcc libc6-dev make libelf1 libtpms-dev libssl-dev openssl softhsm2 curl jq xxd libseccomp-dev swtpm swtpm-tools python3-cryptography tpm2-tools libtss2-tcti-cmd0 tpm2-abrmd libtss2-tcti-tabrmd0 dbus-daemon dpkg-dev groff-base systemd mmdebstrap libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients debian-archive-keyring ca-certificates)

# fresh NAME: is this part of the cache there and of today's layout?
fresh() {
	[ "$(cat "$cache/$1/.recipe" 2>/dev/null)" = "$recipe" ]
}

# publish WORK NAME puts a finished folder into the cache in one step.
publish() {
	echo "$recipe" >"$1/.recipe"
	if [ -e "$cache/$2" ]; then
		mv -T "$cache/$2" "$work/old-$2"
	fi
	mv -T "$1" "$cache/$2"
}

fetch_packages() {
	local missing=() p
	for p in "${packages[@]}"; do
		dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
	done
	if [ ${#missing[@]} -eq 0 ]; then
		return
	fi
	[ "$(id -u)" = 0 ] || die "missing packages; run as root: apt-get install --no-install-recommends ${missing[*]}"
	say "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update
	apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
		install --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

# go_is_enough: is there a Go that is at least as new as go.mod asks?
go_is_enough() {
	local want have
	want=$(awk '$1 == "go" { print $2 }' "$top/go.mod")
	have=$(cd / && GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || return 1
	have=${have#go}
	[ "$(printf '%s\n' "$want" "${have%% *}" | sort -V | head -n 1)" = "$want" ]
}

# Debian's own newest Go, unpacked: its programs are static, so they run on an
# older Debian. Modules still come through the machine's Go module proxy.
fetch_go() {
	if fresh go || go_is_enough; then
		return
	fi
	local minor
	minor=$(awk '$1 == "go" { split($2, v, "."); print v[1] "." v[2] }' "$top/go.mod")
	say "getting Go $minor (the machine's is missing or older)"
	box_new "$work/apt-go" trixie trixie-backports
	box_get "$work/apt-go" "golang-$minor-go" "golang-$minor-src"
	box_unpack "$work/apt-go" "$work/go"
	publish "$work/go" go
	mkdir -p "$cache/bin"
	ln -sfn "../go/usr/lib/go-$minor/bin/go" "$cache/bin/go"
	ln -sfn "../go/usr/lib/go-$minor/bin/gofmt" "$cache/bin/gofmt"
}

# has_device QEMU: can this QEMU carry a vhost-user backend of any virtio id?
# The one device is asked for: "-device help" would load every module of the
# compiled-in folder, which may belong to another QEMU, and abort.
has_device() {
	"$1" -device vhost-user-test-device-pci,help </dev/null 2>&1 | grep 'virtio-id=' >/dev/null
}

fetch_qemu() {
	local q=$cache/bin/qemu-system-x86_64 own
	if [ -x "$q" ] && { [ -L "$q" ] || fresh qemu; }; then
		return
	fi
	mkdir -p "$cache/bin"
	own=$(PATH=/usr/local/bin:/usr/bin:/bin command -v qemu-system-x86_64 || true)
	if [ -n "$own" ] && has_device "$own"; then
		ln -sfn "$own" "$q"
		say "using the machine's QEMU, which has the device"
		return
	fi
	say "getting a private QEMU (the machine's has no vhost-user-test-device-pci)"
	box_new "$work/apt-qemu" trixie trixie-backports
	box_closure "$work/apt-qemu" qemu-system-x86
	box_unpack "$work/apt-qemu" "$work/qemu"
	publish "$work/qemu" qemu
	install -m 0755 "$here/qemu-wrapper.sh" "$q.new"
	has_device "$q.new" || die "the fetched QEMU has no vhost-user-test-device-pci"
	mv -T "$q.new" "$q"
}

# fetch_qemu_7_2: the QEMU and the firmware that Debian 12's users have, the
# same on every machine.
fetch_qemu_7_2() {
	local q=$cache/bin/qemu-7.2 out=$work/qemu-7.2
	if [ -x "$q" ] && fresh qemu-7.2; then
		return
	fi
	say "getting Debian 12's QEMU and OVMF"
	box_new "$work/apt-qemu-7.2" bookworm
	box_closure "$work/apt-qemu-7.2" qemu-system-x86 ovmf
	box_unpack "$work/apt-qemu-7.2" "$out"
	# Of the firmware images for all kinds of machines these two are used.
	find "$out/usr/share/OVMF" "$out/usr/share/ovmf" -type f ! -name 'OVMF_CODE_4M.fd' ! -name 'OVMF_VARS_4M.fd' -delete
	publish "$out" qemu-7.2
	mkdir -p "$cache/bin"
	sed 's,)/qemu$,)/qemu-7.2,' "$here/qemu-wrapper.sh" >"$q.new"
	chmod 0755 "$q.new"
	"$q.new" --version | grep 'version 7\.2\.' >/dev/null || die "the fetched QEMU is not 7.2"
	mv -T "$q.new" "$q"
}

# fetch_tpm2_tools: tpm2-tools with all libraries, to be packed into guests: the
# same ones on every machine.
fetch_tpm2_tools() {
	local box=$work/apt-tpm2-tools out=$work/tpm2-tools
	if fresh tpm2-tools; then
		return
	fi
	say "getting Debian 12's tpm2-tools"
	box_new "$box" bookworm
	box_closure "$box" tpm2-tools libtss2-tcti-device0
	box_unpack "$box" "$out"
	# What is not used, and what is setuid, goes.
	find "$out/usr/bin" "$out/usr/sbin" -mindepth 1 ! -name 'tpm2*' -delete
	rm -rf "$out/usr/share" "$out/usr/lib/udev" "$out/usr/lib/systemd" "$out/var"
	publish "$out" tpm2-tools
}

# fetch_grub: the master boot record of Debian 12's GRUB for a PC's BIOS, and a
# core that goes behind it and reads its commands from the disk's sectors 1024 to
# 1031: no file system and no installation is needed (see disk.go).
fetch_grub() {
	local box=$work/apt-grub root=$work/grub-root out=$work/grub lib
	if fresh grub; then
		return
	fi
	say "getting Debian 12's GRUB"
	box_new "$box" bookworm
	box_closure "$box" grub-common
	box_get "$box" grub-pc-bin
	box_unpack "$box" "$root"
	mkdir -p "$out"
	cp "$root/usr/lib/grub/i386-pc/boot.img" "$out"
	echo 'configfile (hd0)1024+8' >"$work/grub.cfg"
	lib=$root/usr/lib/x86_64-linux-gnu
	"$lib/ld-linux-x86-64.so.2" --library-path "$lib" "$root/usr/bin/grub-mkimage" -O i386-pc \
		-d "$root/usr/lib/grub/i386-pc" -p / -c "$work/grub.cfg" -o "$out/core.img" biosdisk configfile normal linux
	publish "$out" grub
}

# fetch_kernel NAME SUITE: Debian's cloud kernel of a suite with its headers.
fetch_kernel() {
	local name=$1 suite=$2 box=$work/apt-$1 out=$work/$1 image headers version
	if fresh "$name"; then
		return
	fi
	say "getting $name ($suite)"
	box_new "$box" "$suite"
	image=$(box_depends "$box" linux-image-cloud-amd64)
	headers=$(box_depends "$box" linux-headers-cloud-amd64)
	version=${image#linux-image-}
	case $version in "${name#kernel-}".*) ;; *) die "$suite has $version, not ${name#kernel-}" ;; esac
	# linux-headers-V-common and linux-kbuild-V leave out the flavour.
	mapfile -t parts < <(box "$box" apt-cache depends "$headers" |
		awk '$1 == "Depends:" && $2 ~ /^linux-(headers-.*-common|kbuild-)/ { print $2 }')
	box_get "$box" "$image" "$headers" "${parts[@]}"
	box_unpack "$box" "$out/root"
	relocate_headers "$out/root/usr/src/$headers/Makefile"
	ln -s "root/boot/vmlinuz-$version" "$out/vmlinuz"
	ln -s "root/usr/src/$headers" "$out/headers"
	ln -s "root/lib/modules/$version" "$out/modules"
	echo "$version" >"$out/version"
	if [ ! -s "$out/vmlinuz" ] || [ ! -e "$out/headers/.config" ]; then
		die "$image or $headers is not laid out as expected"
	fi
	publish "$out" "$name"
}

# fetch_debian_12: a Debian without anything of ours, but for what our packages
# depend on, and systemd for their units. Maintainer scripts need it to be whole, so
# this is the one root that is installed and not just unpacked.
fetch_debian_12() {
	if fresh debian-12; then
		return
	fi
	say "installing a minimal Debian 12 into the cache"
	mmdebstrap --quiet --variant=minbase --architectures=amd64 --include=adduser,libtpms0,libssl3,libseccomp2,systemd \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		bookworm "$work/debian-12" "deb $(machine_mirror) bookworm main"
	publish "$work/debian-12" debian-12
}

# relocate_headers MAKEFILE: the headers' Makefile includes its other half by
# an absolute path under /usr/src; make it look beside itself.
relocate_headers() {
	sed -i 's,^include /usr/src/,include $(dir $(realpath $(lastword $(MAKEFILE_LIST))))../,' "$1"
}

fetch() {
	case $1 in
	packages) fetch_packages ;;
	go) fetch_go ;;
	qemu) fetch_qemu ;;
	qemu-7.2) fetch_qemu_7_2 ;;
	kernel-6.12) fetch_kernel kernel-6.12 bookworm-backports ;;
	kernel-6.1) fetch_kernel kernel-6.1 bookworm ;;
	tpm2-tools) fetch_tpm2_tools ;;
	grub) fetch_grub ;;
	debian-12) fetch_debian_12 ;;
	*) die "unknown part \"$1\"" ;;
	esac
}

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock -n 9 || {
	say "waiting for another run"
	flock 9
}
work=$(mktemp -d "$cache/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

[ $# -gt 0 ] || set -- packages go qemu qemu-7.2 kernel-6.12 kernel-6.1 tpm2-tools grub debian-12
for part in "$@"; do
	fetch "$part"
done
