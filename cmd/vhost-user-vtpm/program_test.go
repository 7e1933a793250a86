// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hwvtpm/coproc/coproctest/programs"
	"hwvtpm/internal/cli"
	"hwvtpm/vhostuser/vhostusertest"
	"hwvtpm/vtpm"
)

// built is the programs that the tests run.
var built = programs.New("vhost-user-vtpm", "hwvtpm-engine", "coprocd")

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }

// program is a running vhost-user-vtpm.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	socket string
	log    *lockedBuffer
	done   chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// hang is how long a test waits for what takes milliseconds.
const hang = 60 * time.Second

// launch starts the program on a socket of its own, with a simulated
// coprocessor. It may fail at once: see wait.
func launch(t *testing.T, state string, args ...string) *program {
	t.Helper()
	return launchWith(t, append([]string{"--coproc", "sim:" + state}, args...)...)
}

func launchWith(t *testing.T, args ...string) *program {
	t.Helper()
	dir := built.Dir(t)
	p := &program{t: t, socket: filepath.Join(t.TempDir(), "s"), log: &lockedBuffer{}, done: make(chan error, 1)}
	p.cmd = exec.Command(filepath.Join(dir, "vhost-user-vtpm"), append([]string{"--socket-path", p.socket}, args...)...)
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		if t.Failed() {
			t.Logf("log of the program:\n%s", p.log)
		}
	})
	return p
}

func start(t *testing.T, state string, args ...string) *program {
	t.Helper()
	p := launch(t, state, args...)
	p.ready()
	return p
}

// ready waits until the program serves.
func (p *program) ready() {
	p.t.Helper()
	// The socket's file is there a moment before it can be connected to.
	for end := time.Now().Add(hang); ; time.Sleep(5 * time.Millisecond) {
		if strings.Contains(p.log.String(), "vhost-user-vtpm: ready") {
			return
		}
		select {
		case err := <-p.done:
			p.t.Fatalf("the program ended: %v\n%s", err, p.log)
		default:
		}
		if time.Now().After(end) {
			p.t.Fatalf("the program is not ready\n%s", p.log)
		}
	}
}

func (p *program) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// wait returns the exit code, -1 if a signal ended the program.
func (p *program) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(hang):
		p.t.Fatalf("the program does not end\n%s", p.log)
		return 0
	}
}

// waitLog waits until the log has a line with s.
func (p *program) waitLog(s string) {
	p.t.Helper()
	for end := time.Now().Add(hang); !strings.Contains(p.log.String(), s); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("the log does not say %q:\n%s", s, p.log)
		}
	}
}

// enginePID finds the program's only child.
func (p *program) enginePID() int {
	p.t.Helper()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		if len(f) > 1 && f[1] == strconv.Itoa(p.cmd.Process.Pid) && f[0] != "Z" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			return pid
		}
	}
	p.t.Fatal("the program has no engine")
	return 0
}

// guest is what a guest does with its TPM, over a front-end.
type guest struct {
	t      *testing.T
	f      *vhostusertest.Frontend
	framed bool
}

func connect(t *testing.T, p *program, o vhostusertest.Options) *guest {
	t.Helper()
	f, err := vhostusertest.Dial(p.socket, o)
	if err != nil {
		t.Fatalf("connecting: %v\n%s", err, p.log)
	}
	t.Cleanup(f.Close)
	return &guest{t: t, f: f, framed: o.Features&(1<<vtpm.FeatureFramed) != 0}
}

// command sends a TPM command and returns response code and parameters.
func (g *guest) command(cmd []byte) (rc uint32, rest []byte) {
	g.t.Helper()
	in, room := cmd, vtpm.BufferSize
	if g.framed {
		in, room = append([]byte{0}, cmd...), room+1
	}
	out, err := g.f.Exchange(in, room)
	if err != nil {
		g.t.Fatalf("TPM command %x: %v", cmd, err)
	}
	if g.framed {
		if len(out) != room || out[room-1] != 0 {
			g.t.Fatalf("framed response of %d bytes with status %d", len(out), out[len(out)-1])
		}
	}
	size := binary.BigEndian.Uint32(out[2:])
	if !g.framed && int(size) != len(out) {
		g.t.Fatalf("response of %d bytes says %d", len(out), size)
	}
	return binary.BigEndian.Uint32(out[6:]), out[10:size]
}

func message(tag uint16, code uint32, body string) []byte {
	b := binary.BigEndian.AppendUint16(nil, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(10+len(body)))
	return append(binary.BigEndian.AppendUint32(b, code), body...)
}

const (
	passwordSession = "\x00\x00\x00\x09\x40\x00\x00\x09\x00\x00\x00\x00\x00"
	digestOfTest    = "hwvtpm test measurement of 32 by"
)

func (g *guest) startup() uint32 {
	rc, _ := g.command(message(0x8001, 0x144, "\x00\x00"))
	return rc
}

func (g *guest) extend() {
	g.t.Helper()
	body := "\x00\x00\x00\x0a" + passwordSession + "\x00\x00\x00\x01\x00\x0b" + digestOfTest
	if rc, _ := g.command(message(0x8002, 0x182, body)); rc != 0 {
		g.t.Fatalf("TPM2_PCR_Extend = %#x", rc)
	}
}

// pcr10 returns the value of PCR 10 in the SHA-256 bank; it is empty if the TPM
// wants a TPM2_Startup first.
func (g *guest) pcr10() string {
	g.t.Helper()
	rc, rest := g.command(message(0x8001, 0x17e, "\x00\x00\x00\x01\x00\x0b\x03\x00\x04\x00"))
	switch {
	case rc == 0x100:
		return ""
	case rc != 0 || len(rest) < 32:
		g.t.Fatalf("TPM2_PCR_Read = %#x, %x", rc, rest)
	}
	return string(rest[len(rest)-32:])
}

// boot starts the TPM up, extends PCR 10 and returns its value.
func (g *guest) boot() string {
	g.t.Helper()
	if rc := g.startup(); rc != 0 {
		g.t.Fatalf("TPM2_Startup = %#x", rc)
	}
	if v := g.pcr10(); v != strings.Repeat("\x00", 32) {
		g.t.Fatalf("PCR 10 after startup = %x", v)
	}
	g.extend()
	return g.pcr10()
}

func (g *guest) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func stateDir(t *testing.T) string { return filepath.Join(t.TempDir(), "tpm") }

func TestGuestOverEveryRingAndLayout(t *testing.T) {
	for _, o := range []vhostusertest.Options{
		{},
		{EventIdx: true, Indirect: true, Features: 7},
		{Packed: true},
		{Packed: true, EventIdx: true, Indirect: true, Features: 7},
	} {
		t.Run(fmt.Sprintf("packed=%v,framed=%v", o.Packed, o.Features != 0), func(t *testing.T) {
			p := start(t, stateDir(t), "--reset-policy=keep")
			g := connect(t, p, o)
			space, err := g.f.GetConfig(0, 8)
			if want := []byte{0, 16, 2, 3, 0, 0, 0, 0}; err != nil || !bytes.Equal(space, want) {
				t.Errorf("config space = %x, %v, want %x", space, err, want)
			}
			was := g.boot()
			g.must(g.f.Restart())
			if got := g.pcr10(); got != was {
				t.Errorf("PCR 10 after a rebind = %x, want %x", got, was)
			}
			g.must(g.f.Stop())
			g.must(g.f.Continue())
			if got := g.pcr10(); got != was {
				t.Errorf("PCR 10 after stop and cont = %x, want %x", got, was)
			}
			p.signal(syscall.SIGTERM)
			if code := p.wait(); code != cli.ExitOK {
				t.Errorf("exit code after SIGTERM = %d, want 0", code)
			}
			if _, err := os.Stat(p.socket); err == nil {
				t.Error("the socket is still there")
			}
		})
	}
}

func TestLayoutAndRingCanBeWithheld(t *testing.T) {
	p := start(t, stateDir(t), "--reset-policy=keep", "--layout=plain", "--packed=off")
	g := connect(t, p, vhostusertest.Options{Features: 6})
	if f := g.f.Offered(); f&1 != 0 || f&(1<<34) != 0 {
		t.Errorf("offered features = %#x, want neither framed nor packed", f)
	}
	g.boot()
}

func TestEngineKilledGuestGoesOn(t *testing.T) {
	p := start(t, stateDir(t), "--reset-policy=keep")
	g := connect(t, p, vhostusertest.Options{Features: 7})
	was := g.boot()
	for range 5 {
		if err := syscall.Kill(p.enginePID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if got := g.pcr10(); got != was {
			t.Fatalf("PCR 10 after the engine was killed = %x, want %x", got, was)
		}
		g.extend()
		was = g.pcr10()
	}
}

// The same process at the other end is the same run, so a killed backend does
// not give the guest a fresh TPM; another name is a power-on.
func TestBackendKilled(t *testing.T) {
	state := stateDir(t)
	p := start(t, state, "--reset-policy=keep")
	g := connect(t, p, vhostusertest.Options{Features: 7})
	was := g.boot()
	p.signal(syscall.SIGKILL)
	p.wait()
	g.f.Close()

	p = start(t, state, "--reset-policy=keep")
	g = connect(t, p, vhostusertest.Options{Features: 7})
	if got := g.pcr10(); got != was {
		t.Errorf("PCR 10 after the backend was killed = %x, want %x", got, was)
	}
	g.f.Close()
	p.signal(syscall.SIGTERM)
	p.wait()

	p = start(t, state, "--reset-policy=keep", "--run-id=tomorrow")
	g = connect(t, p, vhostusertest.Options{Features: 7})
	if got := g.pcr10(); got != "" {
		t.Errorf("PCR 10 in a new run before TPM2_Startup = %x, want a refusal", got)
	}
	g.boot()
}

func TestPolicyResetStartsOverAtARebind(t *testing.T) {
	p := start(t, stateDir(t), "--reset-policy=reset")
	g := connect(t, p, vhostusertest.Options{Packed: true})
	was := g.boot()
	g.must(g.f.Stop())
	g.must(g.f.Continue())
	if got := g.pcr10(); got != was {
		t.Errorf("PCR 10 after stop and cont = %x, want %x", got, was)
	}
	g.must(g.f.Restart())
	g.boot()
}

func TestBadStateIsExplainedAndKept(t *testing.T) {
	state := stateDir(t)
	p := start(t, state, "--reset-policy=keep")
	p.signal(syscall.SIGTERM)
	p.wait()
	file := filepath.Join(state, "state")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[len(bad)/2] ^= 1
	for name, damage := range map[string]func() error{
		"changed":   func() error { return os.WriteFile(file, bad, 0o600) },
		"truncated": func() error { return os.WriteFile(file, good[:len(good)-1], 0o600) },
		"missing":   func() error { return os.Remove(file) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(file)
			p := launch(t, state, "--reset-policy=keep")
			if code := p.wait(); code != cli.ExitLasting {
				t.Errorf("exit code = %d, want %d", code, cli.ExitLasting)
			}
			if !strings.Contains(p.log.String(), state) {
				t.Errorf("the message does not name %s:\n%s", state, p.log)
			}
			if after, _ := os.ReadFile(file); !bytes.Equal(before, after) {
				t.Error("the damaged state was changed")
			}
		})
	}
}

func TestStateInUse(t *testing.T) {
	state := stateDir(t)
	start(t, state, "--reset-policy=keep")
	second := launch(t, state, "--reset-policy=keep")
	if code := second.wait(); code != cli.ExitLasting {
		t.Errorf("exit code of a second backend = %d, want %d", code, cli.ExitLasting)
	}
}

func TestUsageErrors(t *testing.T) {
	p := launch(t, stateDir(t))
	if code := p.wait(); code != cli.ExitUsage || !strings.Contains(p.log.String(), "--reset-policy=keep") {
		t.Errorf("exit code without a reset authority = %d, want %d; it said:\n%s", code, cli.ExitUsage, p.log)
	}
}

// A chain that breaks the ring stops the device of this guest, not the process.
func TestBrokenRingEndsNothingElse(t *testing.T) {
	p := start(t, stateDir(t), "--reset-policy=keep")
	g := connect(t, p, vhostusertest.Options{Features: 7})
	was := g.boot()
	d := g.f.Driver()
	d.SetAvailIdx(40000)
	vhostusertest.Signal(g.f.Kick)
	p.waitLog("broken")
	g.must(g.f.Restart())
	if got := g.pcr10(); got != was {
		t.Errorf("PCR 10 after the ring was broken and restarted = %x, want %x", got, was)
	}
}
