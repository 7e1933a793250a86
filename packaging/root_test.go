// SPDX-License-Identifier: Apache-2.0

package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// enter runs a command in a root, with the kernel's file systems, in namespaces of
// its own: whatever is mounted or left running there ends with it.
const enter = `
mount --make-rprivate /
mount --bind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/tmp"
exec chroot "$1" /bin/sh -eu -c "$2"
`

// cleanRoot is a copy of the cached Debian.
type cleanRoot struct {
	*testing.T
	dir string
}

func newRoot(t *testing.T, cache string) cleanRoot {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	if out, err := exec.Command("cp", "-a", "--reflink=auto", filepath.Join(cache, "debian-12"), dir).CombinedOutput(); err != nil {
		t.Fatalf("copying the root: %v: %s", err, out)
	}
	// A daemon of the package manager would not be started in a chroot.
	return cleanRoot{t, dir}
}

func (r cleanRoot) try(script string) (string, error) {
	cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-eu", "-c", enter, "sh", r.dir, script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (r cleanRoot) run(script string) string {
	r.Helper()
	out, err := r.try(script)
	if err != nil {
		r.Fatalf("%s\n%v: %s", script, err, out)
	}
	return out
}

// has says which of the paths are in the root.
func (r cleanRoot) has(paths ...string) (found []string) {
	for _, path := range paths {
		if _, err := os.Lstat(filepath.Join(r.dir, path)); err == nil {
			found = append(found, path)
		}
	}
	return found
}

// take puts files into the root's folder /debs.
func (r cleanRoot) take(files ...string) {
	r.Helper()
	args := append([]string{"-D", "-m", "0644", "-t", filepath.Join(r.dir, "debs")}, files...)
	if out, err := exec.Command("install", args...).CombinedOutput(); err != nil {
		r.Fatalf("%v: %s", err, out)
	}
}

// contains fails the test unless text has all parts.
func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in %q", part, text)
		}
	}
}
