// SPDX-License-Identifier: Apache-2.0

package card

import (
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/card/store"
	"hwvtpm/firmware/sealed"
)

// stateFile is the path of a slot's state.
func (r *rig) stateFile(name string) string {
	id := r.show(name).ID
	return filepath.Join(r.cfg.Dir, "slots", hex.EncodeToString(id[:]), "state")
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// A state that is not what it should be is refused with the reason, changes
// nothing, and leaves other slots alone; restored, it runs.
func TestBadStateIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(r *rig, path string) error
		want  abi.Status
	}{
		"truncated": {func(_ *rig, path string) error { return os.Truncate(path, 90) }, abi.StatusCorrupt},
		"empty":     {func(_ *rig, path string) error { return os.Truncate(path, 0) }, abi.StatusCorrupt},
		"missing":   {func(_ *rig, path string) error { return os.Remove(path) }, abi.StatusCorrupt},
		"bit flipped": {func(_ *rig, path string) error {
			b, err := os.ReadFile(path)
			if err == nil {
				b[len(b)-20] ^= 1
				err = os.WriteFile(path, b, 0o600)
			}
			return err
		}, abi.StatusCorrupt},
		"of another slot": {func(r *rig, path string) error {
			return os.WriteFile(path, readFile(r.t, r.stateFile("other")), 0o600)
		}, abi.StatusForeign},
		"symbolic link": {func(r *rig, path string) error {
			return errors.Join(os.Remove(path), os.Symlink(r.stateFile("other"), path))
		}, abi.StatusInternal},
		"readable by others": {func(_ *rig, path string) error { return os.Chmod(path, 0o644) }, abi.StatusInternal},
	} {
		t.Run(name, func(t *testing.T) {
			r := openCard(t, fakeConfig(t))
			r.create("a")
			r.create("other")
			c := r.open("a")
			c.want(t, "add", "1")
			c.close()
			r.await("a", abi.LifeClosed)
			path := r.stateFile("a")
			good := readFile(t, path)
			must(t, tc.spoil(r, path))
			_, err := r.tryOpen("a")
			wantStatus(t, err, tc.want)
			if life := r.show("a").Life; faulty(tc.want) && life != abi.LifeFaulted {
				t.Errorf("slot is %s", life)
			}
			r.open("other").want(t, "add", "1")
			os.Remove(path)
			must(t, os.WriteFile(path, good, 0o600))
			r.open("a").want(t, "add", "2")
		})
	}
}

func TestReplayIsRefusedUntilAdopted(t *testing.T) {
	cfg := fakeConfig(t)
	r := openCard(t, cfg)
	r.create("a")
	c := r.open("a")
	c.want(t, "add", "1")
	path := r.stateFile("a")
	old := readFile(t, path)
	c.want(t, "add", "2")
	c.close()
	r.await("a", abi.LifeClosed)
	must(t, os.WriteFile(path, old, 0o600))
	_, err := r.tryOpen("a")
	wantStatus(t, err, abi.StatusRollback)
	must(t, r.Close())

	r = openCard(t, cfg)
	_, err = r.tryOpen("a")
	wantStatus(t, err, abi.StatusRollback)
	before := r.store.Epoch()
	must(t, r.on(abi.OpSlotAdopt, "a", []byte("restored from the backup of May")))
	if r.store.Epoch() <= before {
		t.Errorf("epoch %d after %d", r.store.Epoch(), before)
	}
	r.open("a").want(t, "add", "2")
	if n := r.Stats().Counters.Adopts; n != 1 {
		t.Errorf("%d adoptions counted", n)
	}
}

func TestAdoptNeedsSomethingToAdopt(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("a")
	wantStatus(t, r.on(abi.OpSlotAdopt, "a", []byte("why not")), abi.StatusOrder)
}

// Slots that are open while another one is adopted go on, and come back later.
func TestAdoptLeavesOthersAlone(t *testing.T) {
	cfg := fakeConfig(t)
	r := openCard(t, cfg)
	r.create("a")
	r.create("b")
	a, b := r.open("a"), r.open("b")
	a.want(t, "add", "1")
	old := readFile(t, r.stateFile("a"))
	a.want(t, "add", "2")
	b.want(t, "add", "1")
	a.close()
	r.await("a", abi.LifeClosed)
	must(t, os.WriteFile(r.stateFile("a"), old, 0o600))
	must(t, r.on(abi.OpSlotAdopt, "a", []byte("test")))
	b.want(t, "add", "2")
	must(t, r.on(abi.OpSlotPark, "b", nil))
	b.want(t, "add", "3")
	r.open("a").want(t, "add", "2")
	must(t, r.Close())
	r = openCard(t, cfg)
	r.open("a").want(t, "add", "3")
	r.open("b").want(t, "add", "4")
}

// The state of a parked slot is set back on disk: it is not brought back.
func TestReplayUnderAParkedSlot(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	r.create("a")
	c := r.open("a")
	old := readFile(t, r.stateFile("a"))
	c.want(t, "add", "1")
	must(t, r.on(abi.OpSlotPark, "a", nil))
	must(t, os.WriteFile(r.stateFile("a"), old, 0o600))
	if out, err := c.run("get"); err == nil {
		t.Errorf("the old state answers %q", out)
	}
	r.await("a", abi.LifeFaulted)
}

func TestWrongKeyIsAHardError(t *testing.T) {
	cfg := fakeConfig(t)
	r := openCard(t, cfg)
	must(t, r.Close())
	other := openCard(t, fakeConfig(t))
	must(t, os.WriteFile(filepath.Join(cfg.Dir, "key"), readFile(t, filepath.Join(other.cfg.Dir, "key")), 0o600))
	if _, err := Open(cfg); !errors.Is(err, sealed.ErrWrongKey) {
		t.Errorf("Open: %v", err)
	}
}

func TestTwoCardsOnOneStore(t *testing.T) {
	cfg := fakeConfig(t)
	r := openCard(t, cfg)
	if _, err := Open(cfg); !errors.Is(err, store.ErrLocked) {
		t.Errorf("second Open: %v", err)
	}
	r.create("a")
	r.open("a").want(t, "add", "1")
}

func TestStoreSetBackIsAdopted(t *testing.T) {
	cfg := fakeConfig(t)
	r := openCard(t, cfg)
	r.create("a")
	must(t, r.Close())
	anchor := readFile(t, filepath.Join(cfg.Dir, "anchor"))
	must(t, openCard(t, cfg).Close())
	must(t, os.WriteFile(filepath.Join(cfg.Dir, "anchor"), anchor, 0o600))
	if _, err := Open(cfg); !errors.Is(err, sealed.ErrRollback) {
		t.Fatalf("Open: %v", err)
	}
	c, err := Adopt(cfg, "the disk was restored")
	must(t, err)
	defer c.Close()
	r = &rig{t: t, Card: c, admin: c.NewSession(Principal{Admin: true})}
	r.open("a").want(t, "add", "1")
}

func smallDisk(t *testing.T) (cfg Config, mount string) {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("mounts a file system: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
	mount = t.TempDir()
	must(t, unix.Mount("tmpfs", mount, "tmpfs", 0, "size=512k,mode=0700"))
	t.Cleanup(func() { unix.Unmount(mount, unix.MNT_DETACH) })
	cfg = fakeConfig(t)
	cfg.Dir = filepath.Join(mount, "card")
	return cfg, mount
}

func TestDiskFull(t *testing.T) {
	cfg, mount := smallDisk(t)
	r := openCard(t, cfg)
	r.create("a")
	c := r.open("a")
	c.want(t, "add", "1")
	filler := filepath.Join(mount, "filler")
	os.WriteFile(filler, make([]byte, 1<<20), 0o600) // as much as there is room for
	if out, err := c.run("add"); err == nil {
		t.Errorf("add on a full disk gives %q", out)
	}
	c.want(t, "get", "1 "+hex.EncodeToString(idOf(r, "a")))
	_, err := r.tryCreate("b")
	wantStatus(t, err, abi.StatusFull)
	must(t, os.Remove(filler))
	c.want(t, "add", "2")
	r.create("b")
	if st := r.Stats(); st.Counters.SaveErrors != 1 || st.Counters.Restarts != 0 {
		t.Errorf("counters %+v", st.Counters)
	}
}

func idOf(r *rig, name string) []byte {
	id := r.show(name).ID
	return id[:]
}

// The file system becomes read-only under a card that runs, as after an error of
// the disk.
func TestDiskBecomesReadOnly(t *testing.T) {
	cfg, mount := smallDisk(t)
	r := openCard(t, cfg)
	r.create("a")
	c := r.open("a")
	c.want(t, "add", "1")
	// The file system has files open for writing: what paths lead to becomes
	// read-only.
	must(t, unix.Mount(mount, mount, "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount(mount, unix.MNT_DETACH) })
	must(t, unix.Mount("", mount, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	if out, err := c.run("add"); err == nil {
		t.Errorf("add on a read-only disk gives %q", out)
	}
	_, err := r.tryCreate("b")
	wantStatus(t, err, abi.StatusStorage)
	_, err = r.destroy("a")
	wantStatus(t, err, abi.StatusInUse)
	must(t, unix.Mount("", mount, "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	c.want(t, "add", "2")
}

// lines counts what is logged.
type lines struct {
	mu   sync.Mutex
	text []string
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(strings.Join(l.text, ""), what)
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, string(p))
	return len(p), nil
}

// Who opens a slot again and again that cannot be opened does not fill the log.
func TestFailedOpensDoNotFillTheLog(t *testing.T) {
	log := &lines{}
	cfg := fakeConfig(t)
	cfg.Logger = hclog.New(&hclog.LoggerOptions{Output: log})
	r := openCard(t, cfg)
	r.create("a")
	state := readFile(t, r.stateFile("a"))
	state[len(state)-1] ^= 1
	must(t, os.WriteFile(r.stateFile("a"), state, 0o600))
	for range 20 {
		_, err := r.tryOpen("a")
		wantStatus(t, err, abi.StatusCorrupt)
	}
	if n := log.count("slot cannot be opened"); n != 1 {
		t.Errorf("the cause is in the log %d times, want once", n)
	}
}

// A guest whose state cannot be written asks for it again and again, and does not
// fill the log with that.
func TestFailedSavesDoNotFillTheLog(t *testing.T) {
	log := &lines{}
	cfg := fakeConfig(t)
	cfg.Logger = hclog.New(&hclog.LoggerOptions{Output: log})
	r := openCard(t, cfg)
	r.create("a")
	c := r.open("a")
	id := r.show("a").ID
	must(t, os.RemoveAll(filepath.Join(cfg.Dir, "slots", hex.EncodeToString(id[:]))))
	begin := time.Now()
	const tries = 200
	for range tries {
		if out, err := c.run("add"); err == nil || err == io.EOF {
			t.Fatalf("add without a directory gives %q, %v", out, err)
		}
	}
	n := log.count("could not be written")
	if most := 1 + int(time.Since(begin)/time.Second); n < 1 || n > most {
		t.Errorf("%d failures are in the log %d times, want 1 to %d", tries, n, most)
	}
	if got := r.Stats().Counters.SaveErrors; got != tries {
		t.Errorf("%d failures are counted, want %d", got, tries)
	}
}
