// SPDX-License-Identifier: Apache-2.0

package gates

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGroup: the socket gets the group.
func TestGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	cfg := config(path)
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	cfg.GID = append(groups, os.Getgid())[0]
	if os.Geteuid() == 0 {
		cfg.GID = 12345
	}
	open(t, cfg)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || int(st.Gid) != cfg.GID {
		t.Errorf("group %d, %v, want %d", st.Gid, err, cfg.GID)
	}
}
