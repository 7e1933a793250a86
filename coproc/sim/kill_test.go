// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/coproc/internal/slot"
)

// running is a slot in a run with a started TPM.
type runningSlot struct {
	*slot.Slot
	t   *testing.T
	tpm *tpmtest.TPM
}

func startSlot(t *testing.T, cfg Config) *runningSlot {
	t.Helper()
	c, err := Open(cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := c.OpenSlot(t.Context(), SlotName)
	if err != nil {
		t.Fatalf("OpenSlot: %v", err)
	}
	if _, err := s.PowerOn(t.Context(), coproc.RunID{1}); err != nil {
		t.Fatalf("PowerOn: %v", err)
	}
	r := &runningSlot{Slot: s.(*slot.Slot), t: t}
	r.tpm = tpmtest.New(t, r.send)
	r.tpm.Startup()
	return r
}

func (r *runningSlot) send(cmd []byte) ([]byte, error) {
	resp := make([]byte, coproc.MaxTransfer)
	n, err := r.Execute(r.t.Context(), coproc.Command{Bytes: cmd}, resp)
	return resp[:n], err
}

// worker is the worker of the moment, or nil.
func (r *runningSlot) worker() *worker {
	w, _ := r.Worker().(*worker)
	return w
}

// signal sends a signal to the worker of the moment.
func (r *runningSlot) signal(sig unix.Signal) {
	if w := r.worker(); w != nil {
		w.cmd.Process.Signal(sig) // it may be gone: then it is
	}
}

// TestKillAtRandom kills the worker again and again under a load in which
// every lost, doubled or undone command shows.
func TestKillAtRandom(t *testing.T) {
	kills := 60
	if testing.Short() {
		kills = 10
	}
	r := startSlot(t, testConfig(t, filepath.Join(t.TempDir(), "tpm")))
	srk := r.tpm.CreateSRK()
	session := r.tpm.HMACSession()
	r.tpm.DefineCounter(tpmtest.NVBase, false)
	r.tpm.Increment(tpmtest.NVBase)
	start := binary.BigEndian.Uint64(r.tpm.ReadNV(tpmtest.NVBase, 8))
	var pcr tpmtest.Digest
	var rounds uint64
	clock, _ := r.tpm.Clock()
	seen := map[string]bool{}
	killed := make(chan struct{}, 1)
	killed <- struct{}{}
	pause := false
	for r.Restarts() < uint64(kills) {
		// A command that kills twice is refused. The one that was under way, or
		// came to a worker that was dying, is in a round of its own.
		select {
		case <-killed:
			pause = true
		default:
			if !pause {
				break
			}
			pause = false
			time.AfterFunc(rand.N(3*time.Millisecond), func() {
				r.signal(unix.SIGKILL)
				killed <- struct{}{}
			})
		}
		r.tpm.Increment(tpmtest.NVBase)
		r.tpm.Extend(10, "event")
		pcr = tpmtest.Extended(pcr, "event")
		if err := r.tpm.UseSession(session, srk); err != nil {
			t.Fatalf("round %d: session: %v", rounds, err)
		}
		random := string(r.tpm.Random(16))
		if seen[random] {
			t.Fatalf("round %d: random number %x came twice", rounds, random)
		}
		seen[random] = true
		rounds++
		if got := r.tpm.PCR(10); got != pcr {
			t.Fatalf("round %d: PCR 10 = %x, want %x", rounds, got, pcr)
		}
		if got := binary.BigEndian.Uint64(r.tpm.ReadNV(tpmtest.NVBase, 8)); got != start+rounds {
			t.Fatalf("round %d: counter = %d, want %d", rounds, got, start+rounds)
		}
		now, _ := r.tpm.Clock()
		if now < clock {
			t.Fatalf("round %d: clock went back from %d to %d", rounds, clock, now)
		}
		clock = now
	}
	t.Logf("%d kills in %d rounds", r.Restarts(), rounds)
	<-killed
}

// TestDeadlyCommand: a command that kills every worker it meets is answered
// with TPM_RC_FAILURE, and the TPM goes on as it was before.
func TestDeadlyCommand(t *testing.T) {
	r := startSlot(t, testConfig(t, filepath.Join(t.TempDir(), "tpm")))
	srk := r.tpm.CreateSRK()
	r.tpm.Extend(10, "kept")
	pcr := r.tpm.PCR(10)
	for range 10 {
		stop := make(chan struct{})
		done := make(chan int)
		go func() { done <- r.killEach(stop) }()
		_, err := tpmtest.RSAKeyCommand(srk, 3072).Execute(r.tpm)
		close(stop)
		kills := <-done
		if kills > slot.MaxKills {
			t.Fatalf("%d workers were killed by one command", kills)
		}
		if kills == slot.MaxKills && !errors.Is(err, tpm2.TPMRCFailure) {
			t.Fatalf("command that killed twice: %v, want TPM_RC_FAILURE", err)
		}
		if got := r.tpm.PCR(10); got != pcr || !r.tpm.Loaded(srk) {
			t.Fatalf("PCR 10 = %x, want %x; key loaded: %t", got, pcr, r.tpm.Loaded(srk))
		}
		if kills == slot.MaxKills {
			return
		}
	}
	t.Fatalf("every RSA key was made faster than two kills")
}

// killEach kills each worker that is deep in the command: it has used more
// processor time than a start takes.
func (r *runningSlot) killEach(stop chan struct{}) (kills int) {
	var last *worker
	for {
		select {
		case <-stop:
			return kills
		case <-time.After(5 * time.Millisecond):
		}
		w := r.worker()
		if w == nil || w == last || cpuTicks(w.cmd.Process.Pid) < 8 {
			continue
		}
		last = w
		w.cmd.Process.Signal(unix.SIGKILL)
		kills++
	}
}

// cpuTicks gives a process's user time in 1/100 s, from /proc/PID/stat.
func cpuTicks(pid int) int {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 12 {
		return 0
	}
	n, _ := strconv.Atoi(fields[11])
	return n
}

// TestHungWorker: a worker that neither answers nor obeys a cancel is
// replaced, and the command counts as canceled.
func TestHungWorker(t *testing.T) {
	cfg := testConfig(t, filepath.Join(t.TempDir(), "tpm"))
	cfg.Timeout, cfg.CancelGrace = 50*time.Millisecond, 50*time.Millisecond
	r := startSlot(t, cfg)
	r.tpm.Extend(10, "kept")
	pcr := r.tpm.PCR(10)
	r.signal(unix.SIGSTOP)
	coproctest.AwaitStopped(t, r.worker().cmd.Process.Pid)
	if _, err := tpmtest.ExtendCommand(10, "lost").Execute(r.tpm); !errors.Is(err, tpm2.TPMRCCanceled) {
		t.Errorf("command to a hung worker: %v, want TPM_RC_CANCELED", err)
	}
	if got := r.tpm.PCR(10); got != pcr {
		t.Errorf("PCR 10 = %x, want %x", got, pcr)
	}
}

func TestWorkerDiesIdle(t *testing.T) {
	r := startSlot(t, testConfig(t, filepath.Join(t.TempDir(), "tpm")))
	r.tpm.Extend(10, "kept")
	pcr := r.tpm.PCR(10)
	for name, call := range map[string]func() error{
		"PowerOn": func() error {
			p, err := r.PowerOn(t.Context(), coproc.RunID{1})
			if err == nil && !p.Resumed {
				err = errors.New("not resumed")
			}
			return err
		},
		"Health": func() error {
			h, err := r.Health(t.Context())
			if err == nil && h.State.String() != "running" {
				err = errors.New("state " + h.State.String())
			}
			return err
		},
		"Execute": func() error { r.tpm.Random(1); return nil },
	} {
		w := r.worker()
		r.signal(unix.SIGKILL)
		<-w.exited
		if err := call(); err != nil {
			t.Errorf("%s after the worker died: %v", name, err)
		}
		if got := r.tpm.PCR(10); got != pcr {
			t.Errorf("after %s: PCR 10 = %x, want %x", name, got, pcr)
		}
	}
	w := r.worker()
	r.signal(unix.SIGKILL)
	<-w.exited
	if err := r.Reset(t.Context()); err != nil {
		t.Fatalf("Reset after the worker died: %v", err)
	}
	r.tpm.Startup()
	if got := r.tpm.PCR(10); got != (tpmtest.Digest{}) {
		t.Errorf("PCR 10 after Reset = %x, want zero", got)
	}
}

// TestNoWorker: if no worker can be started the slot fails for the guest, and
// Reset brings it back once it can.
func TestNoWorker(t *testing.T) {
	dir := t.TempDir()
	cfg := testConfig(t, filepath.Join(dir, "tpm"))
	cfg.EnginePath = filepath.Join(dir, EngineName)
	if err := os.Link(built.Path(t, EngineName), cfg.EnginePath); err != nil {
		t.Skipf("no hard link to the engine: %v", err)
	}
	r := startSlot(t, cfg)
	r.signal(unix.SIGKILL)
	if err := os.Remove(cfg.EnginePath); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		resp, err := r.send(cmdGetRandom32)
		if !errors.Is(err, coproc.ErrFailed) || len(resp) != 10 || binary.BigEndian.Uint32(resp[6:]) != uint32(tpm2.TPMRCFailure) {
			t.Fatalf("Execute without a worker = %x, %v, want TPM_RC_FAILURE and ErrFailed", resp, err)
		}
	}
	if err := os.Link(built.Path(t, EngineName), cfg.EnginePath); err != nil {
		t.Fatal(err)
	}
	if err := r.Reset(t.Context()); err != nil {
		t.Fatalf("Reset: %v", err)
	}
	r.tpm.Startup()
}

// TestSignalsAreForTheParent: what a terminal sends to a whole group leaves
// the worker alone.
func TestSignalsAreForTheParent(t *testing.T) {
	r := startSlot(t, testConfig(t, filepath.Join(t.TempDir(), "tpm")))
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT} {
		r.signal(sig)
		r.tpm.Random(8)
	}
	if r.Restarts() != 0 {
		t.Errorf("%d restarts", r.Restarts())
	}
}

// TestWorkerEndsWithParent: the end of the sockets is the end of the worker.
func TestWorkerEndsWithParent(t *testing.T) {
	r := startSlot(t, testConfig(t, filepath.Join(t.TempDir(), "tpm")))
	w := r.worker()
	w.Link.Close()
	select {
	case <-w.exited:
	case <-time.After(30 * time.Second):
		t.Fatal("the worker outlives its sockets")
	}
	if !w.cmd.ProcessState.Success() {
		t.Errorf("worker ended with %v, want an orderly end", w.cmd.ProcessState)
	}
}
