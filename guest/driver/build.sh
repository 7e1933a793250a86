#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# build.sh KERNEL_HEADERS_DIR OUT.ko [make arguments]
#
# Builds the module without installing anything. KERNEL_HEADERS_DIR is either a
# kernel build tree (/lib/modules/VERSION/build) or a folder into which Debian's
# linux-headers (flavour and common) and linux-kbuild packages were unpacked.
# The unpacked tree is only read: its Makefile names /usr/src, so the build runs
# in a shadow of it whose Makefile names the real place.
set -eu

if [ $# -lt 2 ]; then
	echo "usage: $0 KERNEL_HEADERS_DIR OUT.ko [make arguments]" >&2
	exit 2
fi
headers=$(realpath "$1") out=$(realpath -m "$2")
shift 2
here=$(dirname "$(realpath "$0")")
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# shadow_tree ROOT: prints a kernel build tree for the headers under ROOT.
shadow_tree() {
	set -- "$1" "$1"/usr/src/linux-headers-*/Module.symvers
	if [ $# -ne 2 ] || [ ! -f "$2" ]; then
		echo "$1: want exactly one linux-headers flavour under usr/src" >&2
		return 1
	fi
	flavour=$(dirname "$2")
	mkdir "$tmp/tree"
	for f in "$flavour"/* "$flavour"/.[!.]*; do
		[ -e "$f" ] && ln -s "$f" "$tmp/tree/"
	done
	rm "$tmp/tree/Makefile"
	sed "s,^include /usr/src,include $1/usr/src," "$flavour/Makefile" >"$tmp/tree/Makefile"
	echo "$tmp/tree"
}

if [ -f "$headers/Module.symvers" ]; then
	kdir=$headers
else
	kdir=$(shadow_tree "$headers")
fi
mkdir "$tmp/mod"
cp "$here"/Kbuild "$here"/*.c "$here"/*.h "$tmp/mod/"
# BTF needs pahole, which the build must not depend on. The same sources give
# the same module: the temporary folder's name must not get into it.
make -s -C "$kdir" M="$tmp/mod" CONFIG_DEBUG_INFO_BTF_MODULES= \
	KCFLAGS="-ffile-prefix-map=$tmp/mod=." KAFLAGS="-ffile-prefix-map=$tmp/mod=." "$@" modules
strip --strip-debug "$tmp/mod/tpm_virtio.ko"
mkdir -p "$(dirname "$out")"
cp "$tmp/mod/tpm_virtio.ko" "$out"
