# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# aptbox.sh: apt in a box. Sourced by fetch.sh.
#
# A box is a folder with its own sources.list, package lists, download folder
# and empty dpkg status. apt runs in it with the machine's own transport
# settings (proxy, credentials, CA) and the machine's own archive keys, so
# every package is checked by apt's signatures, and nothing on the machine
# changes: packages are downloaded and unpacked, never installed.

# machine_mirror prints the archive from which this machine installs
# Debian's main packages. apt itself is asked, so that .sources and .list
# files, and mirrors of any kind, come out alike.
machine_mirror() {
	local codename mirror
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v r="$codename" '$2 == r && $3 == "main" && !found++ { print $1 }')
	[ -n "$mirror" ] || die "apt has no source for $codename main; see sources.list(5)"
	echo "${mirror%/}"
}

# box_new DIR SUITE... makes a box that sees exactly these suites and reads
# their lists. Of several suites the last one is preferred.
box_new() {
	local box=$1 mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg suite opt=
	shift
	mirror=$(machine_mirror)
	[ -e "$keyring" ] && opt="[signed-by=$keyring] "
	mkdir -p "$box/lists/partial" "$box/archives/partial"
	: >"$box/status"
	for suite in "$@"; do
		echo "deb $opt$mirror $suite main"
	done >"$box/sources.list"
	cat >"$box/apt.conf" <<-CONF
		Dir::Etc::SourceList "$box/sources.list";
		Dir::Etc::SourceParts "/dev/null";
		Dir::Etc::Preferences "/dev/null";
		Dir::Etc::PreferencesParts "/dev/null";
		Dir::State::Lists "$box/lists";
		Dir::State::Status "$box/status";
		Dir::State::Extended_States "$box/extended_states";
		Dir::Cache::Archives "$box/archives";
		Dir::Cache::PkgCache "";
		Dir::Cache::SrcPkgCache "";
		Dir::Log "$box";
		APT::Sandbox::User "root";
		APT::Default-Release "$suite";
		APT::Architecture "amd64";
		APT::Architectures { "amd64"; };
		APT::Install-Recommends "false";
		APT::Update::Post-Invoke-Success "";
		APT::Update::Post-Invoke "";
		DPkg::Post-Invoke "";
		Acquire::Languages "none";
		Acquire::Retries "3";
	CONF
	# A list left by hooks of the machine would run after the update.
	echo '#clear APT::Update::Post-Invoke-Success; #clear APT::Update::Post-Invoke; #clear DPkg::Post-Invoke;' >>"$box/apt.conf"
	box "$box" apt-get -qq update
}

# box DIR COMMAND... runs an apt command in a box.
box() {
	local box=$1
	shift
	APT_CONFIG="$box/apt.conf" LC_ALL=C "$@"
}

# box_depends DIR PACKAGE prints what a meta package of the box points at.
box_depends() {
	box "$1" apt-cache depends --no-recommends --no-suggests "$2" |
		awk '$1 == "Depends:" && $2 !~ /^</ && !found++ { print $2 }'
}

# box_get DIR PACKAGE... downloads exactly these packages.
box_get() {
	local box=$1
	shift
	(cd "$box/archives" && box "$box" apt-get -qq download "$@")
}

# box_closure DIR PACKAGE... downloads these packages and all that they need.
box_closure() {
	local box=$1
	shift
	box "$box" apt-get -qq -y --download-only install "$@" >/dev/null
}

# box_unpack DIR ROOT unpacks every downloaded package of the box. Debian's
# packages expect the merged /usr, whose links no package ships.
box_unpack() {
	local box=$1 root=$2 deb dir
	mkdir -p "$root"
	for dir in bin sbin lib lib64; do
		mkdir -p "$root/usr/$dir"
		ln -sfn "usr/$dir" "$root/$dir"
	done
	for deb in "$box"/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" |
			tar -x -C "$root" --no-same-owner --keep-directory-symlink \
				--exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale \
				--exclude=./dev
	done
}
