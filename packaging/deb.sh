#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# deb.sh OUT: builds the programs and their Debian packages into OUT. The same
# commit gives the same bytes: times are the commit's (or SOURCE_DATE_EPOCH),
# owners are root, order is by name.
set -euo pipefail
umask 022
export LC_ALL=C

out=${1:?usage: deb.sh OUT}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/.." && pwd)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$top" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
arch=$(dpkg --print-architecture)

# A release is named by its tag; a build between releases sorts behind the last
# one by its date. DEB_VERSION names it otherwise.
if [ -n "${DEB_VERSION:-}" ]; then
	version=$DEB_VERSION
elif ! version=$(git -C "$top" describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null); then
	base=$(git -C "$top" describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || echo v0)
	version="$base+git$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).$(git -C "$top" rev-parse --short=7 HEAD)"
fi
version=${version#v}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# doc PACKAGE: what every package has to say of itself.
doc() {
	install -D -m 0644 "$here/debian/copyright" "$work/$1/usr/share/doc/$1/copyright"
	printf 'hwvtpm (%s) unstable; urgency=medium\n\n  * See the history of the source.\n\n -- %s  %s\n' \
		"$version" "hwvtpm maintainers <hwvtpm@localhost>" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" |
		gzip -9n >"$work/$1/usr/share/doc/$1/changelog.Debian.gz"
}

# shlibs ROOT: what the programs under ROOT are linked with, as Depends.
shlibs() {
	mkdir -p "$work/shlibs/debian"
	echo "Source: hwvtpm" >"$work/shlibs/debian/control"
	(cd "$work/shlibs" && dpkg-shlibdeps -O "$1"/usr/libexec/hwvtpm/hwvtpm-engine 2> >(grep -v 'should already be installed' >&2)) | sed -n 's/^shlibs:Depends=//p'
}

# licences: the notices of what the programs are linked with.
licences() {
	local path dir file
	(cd "$top" && go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}' ./cmd/...) |
		sort -u | while read -r path dir; do
		for file in "$dir"/LICEN[CS]E* "$dir"/NOTICE*; do
			[ ! -f "$file" ] || { printf '==== %s: %s\n\n' "$path" "$(basename "$file")" && cat "$file" && echo; }
		done
	done
	echo "==== Go and its standard library: as golang.org/x/sys"
}

# pack PACKAGE: control files from debian/PACKAGE and a staged tree to a .deb.
pack() {
	local root=$work/$1 size
	doc "$1"
	find "$root" -path '*/share/man/*' -type f -exec gzip -9n {} +
	mkdir "$root/DEBIAN"
	(cd "$root" && find etc -type f -printf '/%p\n' 2>/dev/null | sort >DEBIAN/conffiles || true)
	[ -s "$root/DEBIAN/conffiles" ] || rm -f "$root/DEBIAN/conffiles"
	(cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
	size=$(du -k -s --apparent-size --exclude=DEBIAN "$root" | cut -f1)
	for script in postinst prerm postrm; do
		[ ! -e "$here/debian/$1/$script" ] || fill "$here/debian/$1/$script" >"$root/DEBIAN/$script"
	done
	fill "$here/debian/$1/control" | sed "s/@SIZE@/$size/" >"$root/DEBIAN/control"
	chmod -f 0755 "$root"/DEBIAN/p* || true
	find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	dpkg-deb --root-owner-group --threads-max=1 -Zxz --build "$root" "$out" >/dev/null
}

# split PACKAGE FILE...: moves files of the first package's tree to another's.
split() {
	local package=$1 file
	shift
	for file in "$@"; do
		mkdir -p "$work/$package/$(dirname "$file")"
		mv "$work/hwvtpm/$file" "$work/$package/$file"
	done
}

# fill FILE: a template with its values.
fill() {
	sed "s/@VERSION@/$version/g; s/@ARCH@/$arch/g; s/@SHLIBS@/$depends/g" "$1"
}

depends=
rm -rf "$out" && mkdir -p "$out"

make -s -C "$top" install VERSION="$version" DESTDIR="$work/hwvtpm" PREFIX=/usr >/dev/null
depends=$(shlibs "$work/hwvtpm")
install -d -m 0755 "$work/hwvtpm/etc/hwvtpm/vm" "$work/hwvtpm/var/lib/hwvtpm"
install -D -m 0644 "$top"/docs/*.md -t "$work/hwvtpm/usr/share/doc/hwvtpm"
install -D -m 0644 "$top"/docs/adr/*.md -t "$work/hwvtpm/usr/share/doc/hwvtpm/adr"
licences | gzip -9n >"$work/hwvtpm/usr/share/doc/hwvtpm/licences.gz"
split hwvtpm-libvirt etc/libvirt usr/bin/hwvtpm-libvirt-hook usr/share/man/man8/hwvtpm-libvirt-hook.8
split hwvtpm-control usr/bin/vtpm-control usr/share/man/man8/vtpm-control.8 usr/lib/systemd/system/vtpm-control.service usr/lib/sysusers.d/hwvtpm-control.conf
split hwvtpm-guest usr/bin/vtpm-guest usr/share/man/man8/vtpm-guest.8 usr/lib/systemd/system/vtpm-guest-enrol.{service,timer}
install -d -m 0755 "$work"/hwvtpm-{control,guest}/etc/hwvtpm "$work/hwvtpm-control/var/lib/hwvtpm"
install -D -m 0644 "$top/docs/control.md" "$top/docs/attestation.md" -t "$work/hwvtpm-control/usr/share/doc/hwvtpm-control"
packing=() # compressing takes longest
for package in hwvtpm hwvtpm-libvirt hwvtpm-control hwvtpm-guest; do
	pack "$package" &
	packing+=($!)
done

module=$work/hwvtpm-dkms/usr/src/tpm-virtio-$version
install -D -m 0644 -t "$module" "$top"/guest/driver/*.[ch] "$top"/guest/driver/{Kbuild,Makefile}
sed "s/^PACKAGE_VERSION=.*/PACKAGE_VERSION=\"$version\"/" "$top/guest/driver/dkms.conf" >"$module/dkms.conf"
install -D -m 0644 "$top/guest/driver/README.md" -t "$work/hwvtpm-dkms/usr/share/doc/hwvtpm-dkms"
pack hwvtpm-dkms
for pid in "${packing[@]}"; do
	wait "$pid"
done
ls "$out"
