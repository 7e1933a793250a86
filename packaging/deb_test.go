// SPDX-License-Identifier: Apache-2.0

package packaging

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// daemon starts coprocd as its units would, and waits for it. It is part of a
// script, whose end is the daemon's. What it logs is apart from what the script says.
const daemon = `
install -d -m 0755 /run/hwvtpm
coprocd --store /var/lib/hwvtpm/card --socket /run/hwvtpm/coprocd.sock --engine /usr/libexec/hwvtpm/hwvtpm-engine 2>/run/coprocd.log &
card=$!
while ! vtpmctl card >/dev/null 2>&1; do kill -0 $card || { cat /run/coprocd.log; exit 1; }; sleep 0.1; done
chgrp hwvtpm /run/hwvtpm/coprocd.sock
`

// end ends the daemon in order.
const end = `
kill $card
wait $card
`

// raw sends a TPM command, in octal, and prints the response in hexadecimal.
const raw = `raw() { printf "$1" | vtpmctl raw --slot vm1 | od -An -v -tx1 | tr -d ' \n'; echo; }
`

const (
	getRandom  = `raw '\200\001\000\000\000\014\000\000\001\173\000\010'`         // of 8 bytes
	readEK     = `raw '\200\001\000\000\000\016\000\000\001\163\201\001\000\001'` // public area of 0x81010001
	rspRandom  = "800100000014000000000008"
	rspSuccess = "00000000"
)

// domain asks for a vTPM, as libvirt passes it to the hook.
const domain = `cat >/tmp/vm1.xml <<END
<domain><name>vm1</name><uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid>
<metadata><h:vtpm xmlns:h="urn:hwvtpm:libvirt:1" slot="vm1"/></metadata></domain>
END
event() { /etc/libvirt/hooks/qemu.d/hwvtpm vm1 "$@" - </tmp/vm1.xml; }
`

// programs lists what a removal must take away.
var programs = []string{
	"usr/bin/coprocd", "usr/bin/vtpm-hostd", "usr/bin/vhost-user-vtpm", "usr/bin/vtpmctl", "usr/bin/hwvtpm-libvirt-hook",
	"usr/libexec/hwvtpm", "usr/lib/systemd/system/coprocd.socket", "usr/lib/systemd/system/vhost-user-vtpm@.service",
	"usr/share/qemu/vhost-user/50-vhost-user-vtpm.json",
}

// buildEnv fixes what a commit would decide. A make that runs these tests has no
// jobs to give away.
func buildEnv() []string {
	return append(os.Environ(), "SOURCE_DATE_EPOCH=1767225600", "DEB_VERSION=0.1+test", "MAKEFLAGS=", "MFLAGS=", "MAKELEVEL=")
}

// buildPackages makes the packages and gives their paths by name.
func buildPackages(t *testing.T, top string) map[string]string {
	t.Helper()
	cmd := exec.Command("make", "-s", "-C", top, "deb")
	cmd.Env = buildEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make deb: %v: %s", err, out)
	}
	return packagesIn(t, filepath.Join(top, "build", "deb"))
}

func packagesIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(found) != 5 {
		t.Fatalf("found the packages %q (%v), want 5", found, err)
	}
	byName := map[string]string{}
	for _, path := range found {
		name, _, _ := strings.Cut(filepath.Base(path), "_")
		byName[name] = path
	}
	return byName
}

// place is the work tree and the cache, for a test of the root tier.
func place(t *testing.T) (top, cache string) {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("set HWVTPM_TEST_ROOT=1 to install the packages into a clean Debian")
	}
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if cache = os.Getenv("HWVTPM_CACHE"); cache == "" {
		cache = filepath.Join(top, ".cache")
	}
	return top, cache
}

func TestPackages(t *testing.T) {
	top, cache := place(t)
	debs := buildPackages(t, top)
	t.Run("reproducible", func(t *testing.T) { buildAgain(t, top, debs) })
	t.Run("life", func(t *testing.T) { life(t, cache, debs) })
	t.Run("systemd", func(t *testing.T) { underSystemd(t, cache, debs) })
	t.Run("authority", func(t *testing.T) { authorityUnderSystemd(t, cache, debs) })
	t.Run("dkms", func(t *testing.T) { buildModule(t, cache, debs["hwvtpm-dkms"]) })
}

// buildAgain builds at another time, and compares.
func buildAgain(t *testing.T, top string, debs map[string]string) {
	out := filepath.Join(t.TempDir(), "again")
	cmd := exec.Command(filepath.Join(top, "packaging", "deb.sh"), out)
	cmd.Env = append(buildEnv(), "TZ=Asia/Tokyo")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("deb.sh: %v: %s", err, text)
	}
	for name, path := range packagesIn(t, out) {
		first, err := os.ReadFile(debs[name])
		if err != nil {
			t.Fatal(err)
		}
		if second, err := os.ReadFile(path); err != nil || !bytes.Equal(first, second) {
			t.Errorf("%s is not the same when it is built again (%v)", filepath.Base(path), err)
		}
	}
}

// life installs, uses, removes, installs again, and purges.
func life(t *testing.T, cache string, debs map[string]string) {
	r := newRoot(t, cache)
	r.take(debs["hwvtpm"], debs["hwvtpm-libvirt"])
	const install = "dpkg --install /debs/*.deb"
	r.run(install)
	if found := r.has(programs...); len(found) != len(programs) {
		t.Errorf("installed are %q, want %q", found, programs)
	}
	contains(t, r.run("id hwvtpm"), "(hwvtpm)")
	out := r.run(daemon + raw + "vtpmctl slot create vm1\nvtpmctl slot list\n" + getRandom + "\n" + readEK + end)
	contains(t, out, "vm1", rspRandom)
	ek := lastLine(out)
	contains(t, ek, rspSuccess)
	useHook(t, r)

	r.run("dpkg --remove hwvtpm hwvtpm-libvirt")
	if found := r.has(programs...); len(found) > 0 {
		t.Errorf("remove left %q", found)
	}
	config, state := "etc/libvirt/hooks/qemu.d/hwvtpm", []string{"var/lib/hwvtpm/card", "var/lib/hwvtpm/keys/vm1.key"}
	if len(r.has(config)) == 0 {
		t.Errorf("remove took the configuration file %s away", config)
	}
	r.run(install + "\n" + install) // the second is what an upgrade does
	if got := lastLine(r.run(daemon + raw + readEK + end)); got != ek {
		t.Errorf("after installing again slot vm1 has another TPM: %s, want %s", got, ek)
	}
	r.run("touch /etc/hwvtpm/coprocd.env /etc/hwvtpm/hostd.env /etc/hwvtpm/swtpm.conf /etc/hwvtpm/vm/vm1.env")
	contains(t, r.run("dpkg --purge hwvtpm hwvtpm-libvirt"), "/var/lib/hwvtpm are kept")
	if found := r.has(append(programs, config, "etc/hwvtpm", "run/hwvtpm", "var/log/hwvtpm")...); len(found) > 0 {
		t.Errorf("purge left %q", found)
	}
	if found := r.has(state...); len(found) != len(state) {
		t.Errorf("purge left of the TPMs only %q", found)
	}
	if got := lastLine(r.run(install + daemon + raw + readEK + end)); got != ek {
		t.Errorf("after a purge slot vm1 has another TPM: %s, want %s", got, ek)
	}
}

// useHook has the hook start a backend, which runs as a user of its own, and end it.
func useHook(t *testing.T, r cleanRoot) {
	t.Helper()
	out := r.run(daemon + domain + `
		event prepare begin
		stat -c '%U:%G %a' /run/hwvtpm/vm/vm1 /run/hwvtpm/vm/vm1/vtpm.sock
		for p in /proc/[0-9]*; do
			case $(tr '\0' ' ' <$p/cmdline) in *vhost-user-vtpm*--slot*) stat -c 'process of %U' $p/task ;; esac
		done
		vtpmctl slot list
		event release end
		test ! -e /run/hwvtpm/vm/vm1
		cat /var/log/hwvtpm/vm1.log
	` + end)
	contains(t, out, "hwvtpm:kvm 2770", "hwvtpm:kvm 660", "ready", "live", "stopping")
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// buildModule builds what the package gives DKMS, with DKMS's own command, for the
// kernel of the guests.
func buildModule(t *testing.T, cache, deb string) {
	dir := t.TempDir()
	if out, err := exec.Command("dpkg-deb", "-x", deb, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	found, _ := filepath.Glob(filepath.Join(dir, "usr/src/tpm-virtio-*"))
	if len(found) != 1 {
		t.Fatalf("the source trees are %q, want one", found)
	}
	conf, err := os.ReadFile(filepath.Join(found[0], "dkms.conf"))
	if err != nil {
		t.Fatal(err)
	}
	version := strings.TrimPrefix(filepath.Base(found[0]), "tpm-virtio-")
	contains(t, string(conf), `PACKAGE_VERSION="`+version+`"`)
	script := `. ./dkms.conf && eval "${MAKE[0]} KDIR=$1 CONFIG_DEBUG_INFO_BTF_MODULES=" && test -e "${BUILT_MODULE_NAME[0]}.ko"`
	cmd := exec.Command("bash", "-euc", script, "bash", filepath.Join(cache, "kernel-6.12", "headers"))
	cmd.Dir = found[0]
	cmd.Env = append(os.Environ(), "kernelver=6.12", "MAKEFLAGS=", "MFLAGS=", "MAKELEVEL=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("building the module: %v: %s", err, out)
	}
}
