// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"

	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/sealed"
	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/aik"
	"hwvtpm/vtpm/tpmlink"
)

// swtpm is the host's TPM.
type swtpm struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
}

func startSwtpm(t *testing.T) *swtpm {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("needs swtpm: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
	dir, err := os.MkdirTemp("", "swtpm") // short, for the socket's name
	if err != nil {
		t.Fatal(err)
	}
	s := &swtpm{t: t, dir: dir}
	s.powerOn()
	t.Cleanup(func() {
		s.powerOff()
		os.RemoveAll(dir)
	})
	return s
}

func (s *swtpm) address() string { return "swtpm:" + filepath.Join(s.dir, "tpm") }

func (s *swtpm) powerOn() {
	s.t.Helper()
	socket := filepath.Join(s.dir, "tpm")
	s.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+s.dir+",mode=0600",
		"--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+socket+".ctrl",
		"--flags", "not-need-init,startup-clear", "--seccomp", "action=none", "--log", "file="+filepath.Join(s.dir, "log"))
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(hang); ; time.Sleep(10 * time.Millisecond) {
		if err := s.use(func(*tpmlink.Link) error { return nil }); err == nil {
			return
		} else if time.Now().After(deadline) {
			s.t.Fatalf("swtpm does not come up: %v", err)
		}
	}
}

func (s *swtpm) powerOff() {
	s.cmd.Process.Signal(unix.SIGTERM)
	s.cmd.Wait()
	os.Remove(filepath.Join(s.dir, "tpm"))
}

// use gives f a connection to the TPM, which serves one at a time.
func (s *swtpm) use(f func(*tpmlink.Link) error) error {
	t, err := tpmlink.Open(s.address())
	if err != nil {
		return err
	}
	defer t.Close()
	if _, err := (tpm2.GetRandom{BytesRequested: 8}).Execute(t); err != nil {
		return err
	}
	return f(t)
}

// boot is what measured boot leaves in PCR 7.
func (s *swtpm) boot() {
	s.t.Helper()
	err := s.use(func(t *tpmlink.Link) error {
		_, err := tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: 7, Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
		}.Execute(t)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestHostTPM: with the host's TPM, a store opens on this host in this state of
// boot, and not when it was set back; an operator can say otherwise.
func TestHostTPM(t *testing.T) {
	host := startSwtpm(t)
	d := newDaemon(t, "--host-tpm", host.address(), "--pcrs", "sha256:0,7")
	backup := filepath.Join(d.dir, "key-backup")
	d.args = append(d.args, "--key-backup", backup)
	d.start()
	d.create("a")
	c := d.open(d.device(), "a")
	c.Startup()
	c.DefineCounter(tpmtest.NVBase, false)
	c.Increment(tpmtest.NVBase)
	first := binary.BigEndian.Uint64(c.ReadNV(tpmtest.NVBase, 8))
	if h, err := d.admin().Health(t.Context()); err != nil || h.KeyProtection != 1 || h.RollbackProtection != 1 {
		t.Errorf("health %+v, %v, want protection by the host's TPM", h, err)
	}
	d.end(unix.SIGTERM)
	if _, err := os.Stat(filepath.Join(d.store, "key")); err == nil {
		t.Error("the key is in the store in clear")
	}
	if err := os.Rename(backup, filepath.Join(t.TempDir(), "safe")); err != nil {
		t.Fatal(err)
	}
	old := t.TempDir()
	copyStore(t, d.store, filepath.Join(old, "store"))

	t.Log("the same store goes on")
	d.start()
	c.Increment(tpmtest.NVBase)
	d.end(unix.SIGTERM)

	t.Log("another state of boot")
	host.boot()
	d.refuses(cli.ExitLasting, "PCR 7 is")
	host.powerOff()
	host.powerOn()
	d.start()
	c.Increment(tpmtest.NVBase)
	d.end(unix.SIGTERM)

	t.Log("the store of some time ago")
	if err := os.RemoveAll(d.store); err != nil {
		t.Fatal(err)
	}
	copyStore(t, filepath.Join(old, "store"), d.store)
	d.refuses(cli.ExitLasting, "older")
	plain := d.args
	d.args = append(plain[:len(plain):len(plain)], "--adopt", "restored the backup of Monday")
	d.start()
	if !d.tells("restored the backup of Monday") {
		t.Errorf("the log does not tell of the adoption:\n%s", d.log.String())
	}
	d.end(unix.SIGTERM)
	d.args = plain
	d.start()
	again := d.open(d.device(), "a") // the run of the copy goes on
	if got := binary.BigEndian.Uint64(again.ReadNV(tpmtest.NVBase, 8)); got != first {
		t.Errorf("counter of the adopted store = %d, want %d", got, first)
	}
}

// TestReseal: when the host boots something else, the key's backup opens the card
// again, and another key does not.
func TestReseal(t *testing.T) {
	host := startSwtpm(t)
	d := newDaemon(t)
	backup := filepath.Join(d.dir, "key-backup")
	flags := []string{"--host-tpm", host.address(), "--pcrs", "sha256:7"}
	d.args = append(flags, "--key-backup", backup)
	d.start()
	d.create("a")
	d.end(unix.SIGTERM)
	host.boot()
	d.refuses(cli.ExitLasting, "PCR 7 is")
	other := filepath.Join(d.dir, "other")
	if _, err := sealed.CreateKeyFile(other, sealed.NewKey()); err != nil {
		t.Fatal(err)
	}
	d.args = append(flags[:4:4], "--key-backup", other, "--reseal")
	d.refuses(cli.ExitLasting, "sealed under another key")
	d.args = append(flags[:4:4], "--key-backup", backup, "--reseal")
	d.start()
	d.end(unix.SIGTERM)
	d.args = flags
	d.start()
	d.open(d.device(), "a").Startup()
}

// TestHostTPMIsShared: the host's attestation key is in the same TPM, and neither waits
// for the other for long, though this one serves one connection at a time.
func TestHostTPMIsShared(t *testing.T) {
	host := startSwtpm(t)
	d := newDaemon(t, "--host-tpm", host.address()).start()
	link, err := tpmlink.Open(host.address())
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	key, err := aik.Open(link, t.TempDir(), aik.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for range 100 {
			if _, err := key.Quote(t.Context(), nil, aik.Selection([]uint{7}, tpm2.TPMAlgSHA256)); err != nil {
				t.Errorf("a quote beside the card: %v", err)
			}
		}
	})
	for _, name := range []string{"a", "b", "c", "d"} {
		d.create(name) // which increments the counter
	}
}

func copyStore(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy the store: %v\n%s", err, out)
	}
}
