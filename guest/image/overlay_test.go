// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/u-root/mkuimage/cpio"
)

// tools is a Debian with nothing but tpm2-tools.
func tools(t *testing.T) string {
	t.Helper()
	const arch = "usr/lib/x86_64-linux-gnu/"
	return tree(t, map[string]any{
		"lib":                             "@usr/lib",
		"usr/bin/tpm2":                    made{needed: []string{"libtss2-sys.so.1"}},
		"usr/bin/tpm2_quote":              "@tpm2",
		"usr/bin/tpm2_other":              "@elsewhere",
		arch + "libtss2-sys.so.1":         made{},
		arch + "libtss2-tcti-device.so.0": made{needed: []string{"libtss2-mu.so.0"}},
		arch + "libtss2-mu.so.0":          made{},
	})
}

// The kernel unpacks archive after archive; the second one must start where it
// looks for it, and bring its folders along.
func TestExtend(t *testing.T) {
	o, err := TPMTools(tools(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	base := hostFile(t, dir, "base.cpio", "base of an odd length", 0o600)
	out := filepath.Join(dir, "out.cpio")
	first, err := Extend(out, base, o)
	if err != nil || first.Cached {
		t.Fatalf("Extend() = %+v, %v", first, err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	kept, more := b[:archiveUnit], b[archiveUnit:]
	if !bytes.Equal(bytes.TrimRight(kept, "\x00"), []byte("base of an odd length")) {
		t.Errorf("the image begins with %q", kept)
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(more)))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]uint64{".": 0}
	for _, r := range records {
		if _, ok := seen[filepath.Dir(r.Name)]; !ok {
			t.Errorf("%s comes before its folder", r.Name)
		}
		seen[r.Name] = r.Mode & cpio.S_IFMT
	}
	for name, kind := range map[string]uint64{
		"usr/bin/tpm2": cpio.S_IFREG, "usr/bin/tpm2_quote": cpio.S_IFLNK, "usr/bin/tpm2_other": 0,
		"usr/lib/x86_64-linux-gnu/libtss2-tcti-device.so.0": cpio.S_IFREG,
		"lib/x86_64-linux-gnu/libtss2-sys.so.1":             cpio.S_IFREG,
		"lib/x86_64-linux-gnu/libtss2-mu.so.0":              cpio.S_IFREG,
	} {
		if seen[name] != kind {
			t.Errorf("%s has type %o, want %o", name, seen[name], kind)
		}
	}
	again, err := Extend(out, base, o)
	if err != nil || !again.Cached || again.Hash != first.Hash {
		t.Errorf("second Extend() = %+v, %v, want the cached %s", again, err, first.Hash)
	}
	hostFile(t, dir, "base.cpio", "another base", 0o600)
	if other, err := Extend(out, base, o); err != nil || other.Cached {
		t.Errorf("Extend() of another base = %+v, %v", other, err)
	}
}

func TestExtendMissing(t *testing.T) {
	if _, err := TPMTools(t.TempDir()); err == nil || !strings.Contains(err.Error(), "libtss2-tcti-device0") {
		t.Errorf("TPMTools() of nothing: %v, want an error that names the package", err)
	}
	dir := t.TempDir()
	out, gone := filepath.Join(dir, "out"), filepath.Join(dir, "gone")
	if _, err := Extend(out, gone, Overlay{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Extend() of no base: %v, want ErrNotExist", err)
	}
	base := hostFile(t, dir, "base", "", 0o600)
	if _, err := Extend(out, base, Overlay{Files: map[string]string{"/x": gone}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Extend() with a missing file: %v, want ErrNotExist", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a failed Extend left an image")
	}
}

// What is found for the machine's own tpm2-tools is all that they need: they run
// where there is nothing else.
func TestToolsRunAlone(t *testing.T) {
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("set HWVTPM_TEST_ROOT=1: needs root for chroot(2), and tpm2-tools")
	}
	o, err := TPMTools("/")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for guest, host := range o.Files {
		b, err := os.ReadFile(host)
		if err != nil {
			t.Fatal(err)
		}
		place := filepath.Join(root, guest)
		if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(place, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(tpm2Program, "getrandom", "-T", "device:/dev/none", "8")
	cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", []string{}, &syscall.SysProcAttr{Chroot: root}
	out, err := cmd.CombinedOutput()
	// The program, all its libraries, and the TCTI, which is the one to complain.
	if err == nil || !strings.Contains(string(out), "/dev/none") || strings.Contains(string(out), "cannot open shared object") {
		t.Errorf("tpm2_getrandom in a root of its own: %v\n%s", err, out)
	}
}
