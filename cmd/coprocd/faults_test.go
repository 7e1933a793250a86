// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/sealed"
	"hwvtpm/internal/cli"
)

// TestKilledDaemon: the daemon is killed again and again while slots work. What
// was acknowledged is there, what was done is done once, and each slot has its own.
func TestKilledDaemon(t *testing.T) {
	const slots, kills = 3, 5
	d := newDaemon(t).start()
	dev := d.device()
	var clients [slots]client
	for i := range clients {
		name := fmt.Sprintf("vm-%d", i)
		d.create(name)
		clients[i] = d.open(dev, name)
		clients[i].Startup()
		clients[i].DefineCounter(tpmtest.NVBase, false)
		clients[i].Increment(tpmtest.NVBase)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var rounds [slots]int
	for i, c := range clients {
		wg.Go(func() { rounds[i] = work(t, c, i, stop) })
	}
	for range kills {
		time.Sleep(150 * time.Millisecond)
		d.end(unix.SIGKILL)
		d.start()
	}
	close(stop)
	wg.Wait()
	for i, n := range rounds {
		if n == 0 {
			t.Errorf("slot %d did nothing", i)
		}
	}
}

// work extends a PCR and counts in NV until stop, and checks both each time.
func work(t *testing.T, c client, id int, stop chan struct{}) (rounds int) {
	var pcr tpmtest.Digest
	start := binary.BigEndian.Uint64(c.ReadNV(tpmtest.NVBase, 8))
	for ; ; rounds++ {
		select {
		case <-stop:
			return rounds
		default:
		}
		event := fmt.Sprintf("slot %d event %d", id, rounds)
		c.Extend(10, event)
		pcr = tpmtest.Extended(pcr, event)
		c.Increment(tpmtest.NVBase)
		if got := c.PCR(10); got != pcr {
			t.Errorf("slot %d: PCR 10 = %x, want %x", id, got, pcr)
			return rounds
		}
		if got, want := binary.BigEndian.Uint64(c.ReadNV(tpmtest.NVBase, 8)), start+uint64(rounds)+1; got != want {
			t.Errorf("slot %d: counter = %d, want %d", id, got, want)
			return rounds
		}
	}
}

// contents gives all files of a store but the lock, by name.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "lock" {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestWrongKeyFile: a store is refused with another card's key, and nothing in it
// changes.
func TestWrongKeyFile(t *testing.T) {
	d := newDaemon(t).start()
	d.create("a")
	d.end(unix.SIGTERM)
	before := contents(t, d.store)
	key := filepath.Join(d.dir, "other-key")
	if _, err := sealed.CreateKeyFile(key, sealed.NewKey()); err != nil {
		t.Fatal(err)
	}
	d.args = []string{"--key-file", key}
	d.refuses(cli.ExitLasting, "key")
	after := contents(t, d.store)
	if len(before) != len(after) {
		t.Errorf("%d files before, %d after", len(before), len(after))
	}
	for path, text := range before {
		if after[path] != text {
			t.Errorf("%s has changed", path)
		}
	}
	d.args = nil
	d.start()
	d.open(d.device(), "a").Startup()
}

// TestDamagedStore: a store without one of its files, or with a bit turned, is
// refused; it is never taken for new.
func TestDamagedStore(t *testing.T) {
	for _, name := range []string{"key", "table", "anchor", "identity", "counter"} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t).start()
			d.end(unix.SIGTERM)
			path := filepath.Join(d.store, name)
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			bad := append([]byte(nil), good...)
			bad[len(bad)/2] ^= 1
			for what, spoil := range map[string]func() error{
				"removed":    func() error { return os.Remove(path) },
				"bit turned": func() error { return os.WriteFile(path, bad, 0o600) },
				"cut off":    func() error { return os.WriteFile(path, good[:len(good)/2], 0o600) },
			} {
				if err := spoil(); err != nil {
					t.Fatal(err)
				}
				d.launch()
				if code := d.wait(); code != cli.ExitLasting {
					t.Errorf("%s: exit code %d, want %d", what, code, cli.ExitLasting)
				}
				if err := os.WriteFile(path, good, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			d.start()
		})
	}
}

// slotDir gives the directory of a slot in the store.
func (d *daemon) slotDir(name string) string {
	d.t.Helper()
	info, err := d.admin().Show(d.t.Context(), name)
	if err != nil {
		d.t.Fatal(err)
	}
	return filepath.Join(d.store, "slots", hex.EncodeToString(info.ID[:]))
}

// TestSwappedStates: the states of two slots do not work for each other, and other
// slots do.
func TestSwappedStates(t *testing.T) {
	d := newDaemon(t).start()
	d.create("a", "b", "c")
	a, b := filepath.Join(d.slotDir("a"), "state"), filepath.Join(d.slotDir("b"), "state")
	d.end(unix.SIGTERM)
	for _, p := range [][2]string{{a, a + ".x"}, {b, a}, {a + ".x", b}} {
		if err := os.Rename(p[0], p[1]); err != nil {
			t.Fatal(err)
		}
	}
	d.start()
	dev := d.device()
	for _, name := range []string{"a", "b"} {
		if _, err := dev.OpenSlot(t.Context(), name); !errors.Is(err, coproc.ErrForeign) {
			t.Errorf("open slot %s: %v, want ErrForeign", name, err)
		}
	}
	d.open(dev, "c").Startup()
}

// TestReadOnlyStore: while a slot's directory cannot be written, what needs it
// fails with TPM_RC_NV_UNAVAILABLE and is not done; all else works, and so does
// everything afterwards.
func TestReadOnlyStore(t *testing.T) {
	d := newDaemon(t)
	if os.Geteuid() == 0 { // whom a directory's mode does not stop
		d.creds = &unix.Ucred{Uid: 65534, Gid: 65534}
		if err := os.Chown(d.dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(d.dir, "notify"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	d.start()
	d.create("a", "b")
	dev := d.device()
	a, b := d.open(dev, "a"), d.open(dev, "b")
	for _, c := range []client{a, b} {
		c.Startup()
		c.DefineCounter(tpmtest.NVBase, false)
		c.Increment(tpmtest.NVBase)
	}
	start := binary.BigEndian.Uint64(a.ReadNV(tpmtest.NVBase, 8))
	dir := d.slotDir("a")
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	const nvUnavailable = 0x923
	for range 3 {
		if code := a.increment(t); code != nvUnavailable {
			t.Errorf("increment on a read-only directory: response code %#x, want %#x", code, nvUnavailable)
		}
	}
	a.Extend(10, "event")
	b.Increment(tpmtest.NVBase)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a.Increment(tpmtest.NVBase)
	if got := binary.BigEndian.Uint64(a.ReadNV(tpmtest.NVBase, 8)); got != start+1 {
		t.Errorf("counter = %d, want %d: what failed was not to be done", got, start+1)
	}
}

// increment increments the counter and gives the response code.
func (c client) increment(t *testing.T) uint32 {
	t.Helper()
	// TPM2_NV_Increment with an empty password.
	cmd := []byte{0x80, 0x02, 0, 0, 0, 31, 0, 0, 0x01, 0x34}
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(tpmtest.NVBase))
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(tpmtest.NVBase))
	cmd = append(cmd, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0)
	resp := make([]byte, coproc.MaxTransfer)
	if _, err := c.slot.Execute(t.Context(), coproc.Command{Bytes: cmd}, resp); err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.Uint32(resp[6:])
}

// TestStallingClients: clients that stop in the middle hold up neither others nor
// the end of the daemon.
func TestStallingClients(t *testing.T) {
	d := newDaemon(t).start()
	d.create("a", "b")
	// One that has connected and says nothing.
	silent, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(silent)
	if err := unix.Connect(silent, &unix.SockaddrUnix{Name: d.socket}); err != nil {
		t.Fatal(err)
	}
	// One that has a slot, sends until nothing more fits, and reads nothing.
	key, err := d.key("a")
	if err != nil {
		t.Fatal(err)
	}
	_, files, err := d.admin().Open(t.Context(), "a", func(ch abi.Challenge) (abi.Proof, error) {
		return abi.Proof(ed25519.Sign(key, abi.OpenMessage(ch.Serial, ch.ID, ch.Nonce))), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer files[0].Close()
	defer files[1].Close()
	fd := int(files[0].Fd())
	hello := abi.AppendSubmission(nil, &abi.Submission{Op: abi.OpIdentify, Payload: abi.AppendHello(nil, abi.Hello{Min: abi.MinVersion, Max: abi.Version})})
	for err == nil {
		err = unix.Sendto(fd, hello, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	}
	c := d.open(d.device(), "b")
	c.Startup()
	c.Extend(10, "event")
	if code := d.end(unix.SIGTERM); code != cli.ExitOK { // hang is the limit
		t.Errorf("exit code %d", code)
	}
}
