// SPDX-License-Identifier: Apache-2.0

package vtpm

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
)

type scriptMonitor struct {
	reset bool
	err   error
}

func (m *scriptMonitor) Poll() (bool, error) {
	r := m.reset
	m.reset = false
	return r, m.err
}

func qmpDevice(t *testing.T, slot *scriptSlot) (*Device, *scriptMonitor) {
	t.Helper()
	mon := &scriptMonitor{}
	slot.answer = answerWith(sized(0, 10))
	return newTestDevice(t, slot, func(c *Config) { c.Policy, c.Monitor = PolicyQMP, mon }), mon
}

func mustStart(t *testing.T, d *Device, features uint64, base uint32) {
	t.Helper()
	if err := d.Start(0, features, base); err != nil {
		t.Fatalf("Start: %v", err)
	}
}

func command(d *Device) uint32 {
	req := chain(sized(0x17b, 12), BufferSize)
	d.Handle(req)
	h, _ := parseHeader(req.Out)
	return h.code
}

// The table of docs/virtio-vtpm.md, "Reset": what the front-end does, whether
// QEMU says RESET meanwhile, and whether the TPM is reset.
func TestResetPolicies(t *testing.T) {
	const packed, packedStart = 1 << 34, 1<<31 | 1<<15
	tests := []struct {
		name     string
		policy   ResetPolicy
		says     bool // RESET seen between stop and start
		features uint64
		base     uint32
		want     int
	}{
		{"reboot under qmp", PolicyQMP, true, 0, 0, 1},
		{"rebind under qmp", PolicyQMP, false, 0, 0, 0},
		{"stop and cont under qmp", PolicyQMP, false, 0, 17, 0},
		{"rebind under keep", PolicyKeep, false, 0, 0, 0},
		{"rebind under reset", PolicyReset, false, 0, 0, 1},
		{"rebind under reset, packed", PolicyReset, false, packed, packedStart, 1},
		{"stop and cont under reset", PolicyReset, false, 0, 17, 0},
		{"stop and cont under reset, packed", PolicyReset, false, packed, packedStart + 3, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			slot := &scriptSlot{answer: answerWith(sized(0, 10))}
			mon := &scriptMonitor{}
			d := newTestDevice(t, slot, func(c *Config) {
				c.Policy = tt.policy
				if tt.policy == PolicyQMP {
					c.Monitor = mon
				}
			})
			mustStart(t, d, tt.features, 5)
			command(d)
			d.Stop(0)
			mon.reset = tt.says
			mustStart(t, d, tt.features, tt.base)
			if rc := command(d); rc != 0 {
				t.Errorf("the command after the restart got %#x", rc)
			}
			if slot.resets != tt.want {
				t.Errorf("the TPM was reset %d times, want %d", slot.resets, tt.want)
			}
		})
	}
}

func TestResetWhileStoppedHappensAtOnce(t *testing.T) {
	slot := &scriptSlot{}
	d, mon := qmpDevice(t, slot)
	mustStart(t, d, 0, 0)
	d.Stop(0)
	mon.reset = true
	d.CheckMonitor()
	if slot.resets != 1 {
		t.Errorf("resets = %d, want 1: a backend killed now must not forget it", slot.resets)
	}
	mustStart(t, d, 0, 0)
	command(d)
	if slot.resets != 1 {
		t.Errorf("resets = %d after the start, want 1: one event resets once", slot.resets)
	}
}

func TestResetWhileRunningComesBeforeTheNextCommand(t *testing.T) {
	slot := &scriptSlot{}
	d, mon := qmpDevice(t, slot)
	mustStart(t, d, 0, 0)
	mon.reset = true
	d.CheckMonitor()
	if slot.resets != 0 {
		t.Errorf("resets = %d while a command may run, want 0", slot.resets)
	}
	command(d)
	if slot.resets != 1 || len(slot.commands) != 1 {
		t.Errorf("resets = %d, commands = %d, want 1 and 1", slot.resets, len(slot.commands))
	}
}

// A reset that can't be carried out must not let the guest go on with the old
// PCRs, nor be forgotten.
func TestFailedResetFailsCommandsUntilItWorks(t *testing.T) {
	slot := &scriptSlot{resetErr: errScript}
	d, mon := qmpDevice(t, slot)
	mon.reset = true
	mustStart(t, d, 0, 0)
	for range 3 {
		if rc := command(d); rc != rcFailure {
			t.Fatalf("rc = %#x with a failing reset, want TPM_RC_FAILURE", rc)
		}
	}
	if len(slot.commands) != 0 {
		t.Fatalf("%d commands reached the TPM before its reset", len(slot.commands))
	}
	slot.resetErr = nil
	if rc := command(d); rc != 0 || slot.resets != 1 {
		t.Errorf("rc = %#x, resets = %d once the reset works, want 0 and 1", rc, slot.resets)
	}
}

func TestBlindStartKeepsPCRsAndCounts(t *testing.T) {
	slot := &scriptSlot{}
	d, mon := qmpDevice(t, slot)
	mon.err = errNoMonitor
	mustStart(t, d, 0, 0)
	if rc := command(d); rc != 0 || slot.resets != 0 {
		t.Errorf("rc = %#x, resets = %d, want 0 and 0", rc, slot.resets)
	}
	if got := d.Stats().BlindStarts; got != 1 {
		t.Errorf("BlindStarts = %d, want 1", got)
	}
}

// A guest can start its queue, and try commands, as often as it likes; what is
// wrong meanwhile is said once.
func TestGuestCannotFillTheLog(t *testing.T) {
	var log bytes.Buffer
	slot := &scriptSlot{answer: answerWith(sized(0, 10))}
	mon := &scriptMonitor{}
	d := newTestDevice(t, slot, func(c *Config) {
		c.Policy, c.Monitor = PolicyQMP, mon
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: &log})
	})
	log.Reset()
	mon.reset, mon.err = true, errNoMonitor
	slot.resetErr = errors.New("no card")
	const times = 50
	for range times {
		mustStart(t, d, 0, 0)
		command(d)
		d.Stop(0)
	}
	if n := bytes.Count(log.Bytes(), []byte{'\n'}); n != 2 {
		t.Errorf("%d failing starts made %d log lines, want 2:\n%s", times, n, &log)
	}
}

// What a monitor said before its connection broke still counts.
func TestLastWordsOfMonitorCount(t *testing.T) {
	slot := &scriptSlot{}
	d, mon := qmpDevice(t, slot)
	mon.reset, mon.err = true, errNoMonitor
	mustStart(t, d, 0, 0)
	if command(d); slot.resets != 1 {
		t.Errorf("resets = %d, want 1", slot.resets)
	}
}

func TestPowerOnRuns(t *testing.T) {
	slot := &scriptSlot{}
	d, _ := qmpDevice(t, slot) // powered on with run 1
	for _, run := range []byte{1, 1, 2, 1} {
		if err := d.PowerOn(t.Context(), coproc.RunID{run}); err != nil {
			t.Fatal(err)
		}
	}
	want := []coproc.RunID{{1}, {2}, {1}}
	if len(slot.powerOns) != len(want) {
		t.Fatalf("power-ons = %v, want %v", slot.powerOns, want)
	}
	for i := range want {
		if slot.powerOns[i] != want[i] {
			t.Errorf("power-on %d = %v, want %v", i, slot.powerOns[i][0], want[i][0])
		}
	}
}

// A slot that can't restore the machine's own run is served, so that the
// machine's reset can bring it back; any other failure refuses the machine.
func TestPowerOnFailures(t *testing.T) {
	slot := &scriptSlot{}
	d, mon := qmpDevice(t, slot)
	slot.powerErr = errors.New("no card")
	if err := d.PowerOn(t.Context(), coproc.RunID{2}); !errors.Is(err, slot.powerErr) {
		t.Errorf("PowerOn without a card = %v, want %v", err, slot.powerErr)
	}
	if rc := command(d); rc != rcFailure {
		t.Errorf("command without a card = %#x, want %#x", rc, rcFailure)
	}
	slot.powerErr = coproc.ErrFailed
	if err := d.PowerOn(t.Context(), coproc.RunID{2}); err != nil {
		t.Errorf("PowerOn of a failed slot = %v, want none", err)
	}
	mon.reset = true
	d.CheckMonitor()
	if slot.resets != 1 {
		t.Errorf("resets = %d, want 1: only that ends the failure", slot.resets)
	}
}

// A reset that was heard of while the run's TPM was not powered yet belongs to
// the run that is resumed, and to no new one.
func TestPendingResetAcrossPowerOn(t *testing.T) {
	for _, resumed := range []bool{true, false} {
		slot := &scriptSlot{resumed: resumed, answer: answerWith(sized(0, 10))}
		mon := &scriptMonitor{reset: true}
		d, err := NewDevice(Config{Slot: slot, Policy: PolicyQMP, Monitor: mon})
		if err != nil {
			t.Fatal(err)
		}
		d.CheckMonitor()
		if err := d.PowerOn(t.Context(), coproc.RunID{1}); err != nil {
			t.Fatal(err)
		}
		mustStart(t, d, 0, 0)
		command(d)
		if got := slot.resets == 1; got != resumed {
			t.Errorf("resumed %v: reset %v", resumed, got)
		}
	}
}

func TestDeviceState(t *testing.T) {
	d, _ := qmpDevice(t, &scriptSlot{})
	var b bytes.Buffer
	if err := d.SaveState(&b); err != nil {
		t.Fatal(err)
	}
	saved := b.Bytes()
	if err := d.LoadState(bytes.NewReader(saved)); err != nil {
		t.Errorf("LoadState of the same run: %v", err)
	}
	other, _ := qmpDevice(t, &scriptSlot{})
	if err := other.PowerOn(t.Context(), coproc.RunID{9}); err != nil {
		t.Fatal(err)
	}
	if err := other.LoadState(bytes.NewReader(saved)); !errors.Is(err, ErrOtherRun) {
		t.Errorf("LoadState in another run = %v, want ErrOtherRun", err)
	}
	for n := range saved {
		if err := d.LoadState(bytes.NewReader(saved[:n])); err == nil {
			t.Errorf("LoadState of the first %d bytes succeeded", n)
		}
	}
	if err := d.LoadState(bytes.NewReader(append(bytes.Clone(saved), 0))); err == nil {
		t.Error("LoadState with a byte too many succeeded")
	}
	for i := range 8 {
		bad := bytes.Clone(saved)
		bad[i] ^= 0x80
		if err := d.LoadState(bytes.NewReader(bad)); err == nil {
			t.Errorf("LoadState with byte %d changed succeeded", i)
		}
	}
}

func TestRuns(t *testing.T) {
	self, err := PeerRun(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := PeerRun(os.Getpid()); again != self {
		t.Error("the same process is two runs")
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child, err := PeerRun(cmd.Process.Pid)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil || child == self {
		t.Errorf("PeerRun(child) = %x, %v; want another run than %x", child[:4], err, self[:4])
	}
	if _, err := PeerRun(cmd.Process.Pid); err == nil {
		t.Error("PeerRun of a process that has ended succeeded")
	}
	if _, err := PeerRun(0); err == nil {
		t.Error("PeerRun(0) succeeded")
	}
	if NamedRun("a") == NamedRun("b") || NamedRun("a") == UnknownRun() {
		t.Error("different names are one run")
	}
}

func TestStartTime(t *testing.T) {
	const tail = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21"
	for name, in := range map[string]string{
		"plain":             "12 (qemu)" + tail,
		"spaces and parens": "12 (a) b) (c)" + tail,
	} {
		if got, err := startTime(in); err != nil || got != "4711" {
			t.Errorf("%s: startTime = %q, %v, want 4711", name, got, err)
		}
	}
	for _, in := range []string{"", "12 qemu", "12 (qemu) S 1 2"} {
		if got, err := startTime(in); err == nil {
			t.Errorf("startTime(%q) = %q, want an error", in, got)
		}
	}
}
