#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs the QEMU unpacked in ../qemu with its own loader, libraries and
# firmware: no chroot, no mount, and the machine's C library stays out of it.
root=$(dirname "$(dirname "$(realpath "$0")")")/qemu
lib=$root/usr/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR="$lib/qemu"
exec "$lib/ld-linux-x86-64.so.2" --library-path "$lib:$lib/pulseaudio" \
	--argv0 qemu-system-x86_64 "$root/usr/bin/qemu-system-x86_64" \
	-L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" "$@"
