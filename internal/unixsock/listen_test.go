// SPDX-License-Identifier: Apache-2.0

package unixsock

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenReplacesOnlyADeadSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := Listen(Stream, path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket mode = %v, %v, want 0600", info.Mode(), err)
	}
	if second, err := Listen(Stream, path, 0o600); err == nil {
		second.Close()
		t.Error("Listen took over a living socket")
	}
	ln.SetUnlinkOnClose(false) // as if killed
	ln.Close()
	again, err := Listen(Stream, path, 0o660)
	if err != nil {
		t.Fatalf("Listen over a dead socket: %v", err)
	}
	again.Close()
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there after Close")
	}
}

func TestListenKeepsOtherFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ln, err := Listen(Stream, path, 0o600); err == nil {
		ln.Close()
		t.Error("Listen replaced a regular file")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "data" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

// TestListenAsGivesModeAndOwner: exactly these, whatever the umask.
func TestListenAsGivesModeAndOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	uid, gid := os.Getuid(), os.Getgid()
	if os.Geteuid() == 0 {
		uid, gid = 12345, 23456
	}
	ln, err := ListenAs(Packets, path, 0o666, uid, gid)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode != unix.S_IFSOCK|0o666 || int(st.Uid) != uid || int(st.Gid) != gid {
		t.Errorf("mode %o, owner %d, group %d, want %o, %d, %d", st.Mode, st.Uid, st.Gid, unix.S_IFSOCK|0o666, uid, gid)
	}
}

// TestListenTouchesOnlyItsSocket: somebody who owns the folder puts other things in
// the socket's place, as fast as possible. None of them gets the mode.
func TestListenTouchesOnlyItsSocket(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "s"), filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		link := filepath.Join(dir, "link")
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Symlink(victim, link)
			if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
				_ = os.Rename(link, path)
			}
		}
	}()
	for range 500 {
		if ln, err := ListenAs(Stream, path, 0o666, os.Getuid(), -1); err == nil {
			ln.Close()
		}
		_ = os.Remove(path)
	}
	close(stop)
	<-stopped
	if info, err := os.Stat(victim); err != nil || info.Mode() != 0o600 {
		t.Errorf("the mode of another file was made %v, %v", info.Mode(), err)
	}
}

// TestGrantRefusesWhatIsNotTheSocket: the same, one case after the other.
func TestGrantRefusesWhatIsNotTheSocket(t *testing.T) {
	for name, exchange := range map[string]func(path string) error{
		"symbolic link": func(path string) error { return os.Symlink(path+"-other", path) },
		"file":          func(path string) error { return os.WriteFile(path, nil, 0) },
		"open socket":   func(path string) error { return os.Rename(path+"-other", path) },
		"second name":   func(path string) error { return errors.Join(os.Chmod(path+"-other", 0), os.Link(path+"-other", path)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			other, err := Listen(Stream, path+"-other", 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			if err := exchange(path); err != nil {
				t.Fatal(err)
			}
			if err := grant(path, 0o666, -1, -1); err == nil {
				t.Error("it was given the socket's mode")
			}
		})
	}
}

// TestListenLeavesTheUmask: it is the process', and others make files meanwhile.
func TestListenLeavesTheUmask(t *testing.T) {
	dir := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 1000 {
			if ln, err := Listen(Stream, filepath.Join(dir, "s"), 0); err == nil {
				ln.Close()
			}
		}
	}()
	for name := filepath.Join(dir, "file"); ; os.Remove(name) {
		select {
		case <-done:
			return
		default:
		}
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o700 {
			t.Fatalf("a folder has the mode %v, %v, want 0700", info.Mode(), err)
		}
	}
}
