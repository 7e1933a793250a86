// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// GRUB finds by number what bootDisk has put there: a sector too early or late
// would be another file.
func TestBootDisk(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Repeat([]byte(name[:1]), size), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	env := &Env{Cache: dir}
	out := filepath.Join(dir, "disk")
	kernel, initrd := file("kernel", 1025), file("initrd", 512)
	if err := env.bootDisk(out, kernel, initrd, ""); err == nil {
		t.Error("bootDisk() without a boot loader succeeded")
	}
	file("grub/boot.img", 512)
	file("grub/core.img", 1000)
	if err := env.bootDisk(out, kernel, initrd, "console=ttyS0"); err != nil {
		t.Fatal(err)
	}
	disk, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	at := func(first, count int) string { return string(disk[first*512 : (first+count)*512]) }
	if got, want := strings.TrimRight(at(1024, 8), "\n"), "linux (hd0)2048+3 console=ttyS0\ninitrd (hd0)2051+1\nboot"; got != want {
		t.Errorf("GRUB's commands are %q, want %q", got, want)
	}
	for _, want := range []struct {
		first, count, size int
		fill               string
	}{{0, 1, 512, "g"}, {1, 2, 1000, "g"}, {2048, 3, 1025, "k"}, {2051, 1, 512, "i"}} {
		if got := strings.TrimRight(at(want.first, want.count), "\x00"); got != strings.Repeat(want.fill, want.size) {
			t.Errorf("sectors %d+%d do not hold the file", want.first, want.count)
		}
	}
	if len(disk) != 2052*512 {
		t.Errorf("the disk has %d bytes", len(disk))
	}
	if err := env.bootDisk(out, kernel, initrd, strings.Repeat("x", 5000)); err == nil {
		t.Error("a command line that does not fit was taken")
	}
	file("grub/core.img", 1024*512)
	if err := env.bootDisk(out, kernel, initrd, ""); err == nil {
		t.Error("a boot loader that reaches into its commands was taken")
	}
}
