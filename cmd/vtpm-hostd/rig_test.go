// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ed25519"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/programs"
	"hwvtpm/coproc/coproctest/swtpmtest"
	"hwvtpm/vtpm/door"
)

// hang guards every wait.
const hang = time.Minute

// built are the programs of a host and its cloud.
var built = programs.New("vtpm-hostd", "vtpm-control", "coprocd", "hwvtpm-engine", "vtpmctl")

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }

// process is a program that a test starts and ends as it likes. What it says goes
// into a file.
type process struct {
	t    testing.TB
	name string
	args []string
	log  string // file
	cmd  *exec.Cmd
}

func (s *site) process(name string, args ...string) *process {
	p := &process{t: s.t, name: name, args: args, log: s.path(name + ".log")}
	s.t.Cleanup(func() {
		p.end()
		if s.t.Failed() {
			s.t.Logf("%s:\n%s", name, p.said())
		}
	})
	return p
}

// said is what the program has said since it was started last.
func (p *process) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Error(err)
	}
	return string(text)
}

// start starts the program and waits until it says this.
func (p *process) start(ready string) {
	p.t.Helper()
	log, err := os.Create(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(built.Path(p.t, p.name), p.args...)
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL} // a test that is killed leaves nothing
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.says(ready)
}

// says waits until the program has said this.
func (p *process) says(text string) {
	p.t.Helper()
	until(p.t, p.name+" says "+text, func() bool { return strings.Contains(p.said(), text) })
}

// end ends the program and gives its exit code.
func (p *process) end() int {
	if p.cmd == nil {
		return 0
	}
	p.cmd.Process.Signal(unix.SIGTERM)
	timer := time.AfterFunc(hang, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	p.cmd.Wait()
	code := p.cmd.ProcessState.ExitCode()
	p.cmd = nil
	return code
}

// again ends the program and starts it.
func (p *process) again(ready string) {
	p.t.Helper()
	p.end()
	p.start(ready)
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(hang); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// site is a cloud with one host: an authority, the host's TPM as its maker ships it,
// a card, and the daemon between them.
type site struct {
	t       testing.TB
	dir     string
	address string // of the authority
	keys    map[string]ed25519.PrivateKey

	control, card, host *process
}

// newSite starts all but the daemon.
func newSite(t testing.TB) *site {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("needs swtpm: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
	s := &site{t: t, dir: swtpmtest.Dir(t), keys: map[string]ed25519.PrivateKey{}}
	maker, err := swtpmtest.Manufacture(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	s.ctl("init", "test")
	if err := os.CopyFS(s.path("control", "manufacturers"), os.DirFS(maker)); err != nil {
		t.Fatal(err)
	}
	measure(t, swtpmtest.Start(t, s.dir))
	s.control = s.process("vtpm-control", "--dir", s.path("control"), "serve", "--listen", "127.0.0.1:0", "--name", "127.0.0.1")
	s.startControl()
	s.card = s.process("coprocd", "--store", s.path("card"), "--socket", s.path("card.sock"),
		"--engine", built.Path(t, "hwvtpm-engine"), "--worker-uid", "-1")
	s.card.start("ready")
	return s
}

func (s *site) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// startControl starts the authority, at the address it had before if there was one.
func (s *site) startControl() {
	s.t.Helper()
	if s.address != "" {
		s.control.args[4] = s.address
	}
	s.control.start("address=")
	s.address = regexp.MustCompile(`address=(\S+)`).FindStringSubmatch(s.control.said())[1]
}

// ctl gives the authority a command.
func (s *site) ctl(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(built.Path(s.t, "vtpm-control"), append([]string{"--dir", s.path("control")}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("vtpm-control %q: %v: %s", args, err, &errs)
	}
	return strings.TrimSpace(string(out))
}

// eventLog is what the host's firmware has measured.
const eventLog = "../../vtpm/hostpcr/testdata/ovmf-sha256.bin"

// measure extends a TPM as the firmware did that wrote the log.
func measure(t testing.TB, socket string) {
	t.Helper()
	tpm, err := linuxudstpm.Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer tpm.Close()
	text, err := os.ReadFile(eventLog)
	if err != nil {
		t.Fatal(err)
	}
	log, err := tcg.ParseEventLog(text, tcg.ParseOpts{AllowPadding: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range log.Events(register.HashSHA256) {
		if e.Type == tcg.NoAction {
			continue
		}
		if _, err := (tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(e.Index), Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: e.Digest}}},
		}).Execute(tpm); err != nil {
			t.Fatal(err)
		}
	}
}

// startHost gives the host a token and starts its daemon.
func (s *site) startHost(args ...string) {
	s.t.Helper()
	s.write("token", s.ctl("token", "host", "host-1"))
	s.host = s.process("vtpm-hostd", append([]string{
		"--name", "host-1", "--dir", s.path("hostd"), "--tpm", "swtpm:" + s.path("s"), "--event-log", eventLog,
		"--coproc", s.path("card.sock"), "--control", "https://" + s.address, "--control-ca", s.path("control", "ca", "root.pem"),
		"--token-file", s.path("token"), "--socket", s.path("hostd.sock"), "--backend-socket", s.path("backend.sock"),
		"--guest-dir", s.path("guests"), "--certificates", s.path("certificates"), "--poll", "100ms", "--log-level", "debug",
	}, args...)...)
	s.host.start("ready")
}

func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// door connects to a socket of the daemon.
func (s *site) door(socket ...string) *door.Client {
	s.t.Helper()
	conn, err := net.Dial("unix", s.path(socket...))
	if err != nil {
		s.t.Fatal(err)
	}
	c := door.NewClient(conn)
	s.t.Cleanup(func() { c.Close() })
	return c
}

// guest connects to the door of a machine, when it is there.
func (s *site) guest(vm string) *door.Client {
	s.t.Helper()
	until(s.t, "a door for "+vm, func() bool {
		_, err := os.Stat(s.path("guests", vm+".sock"))
		return err == nil
	})
	return s.door("guests", vm+".sock")
}

func (s *site) status() door.Status {
	s.t.Helper()
	var st door.Status
	c := s.door("hostd.sock")
	defer c.Close()
	if err := c.Call(s.t.Context(), door.OpStatus, nil, &st); err != nil {
		s.t.Fatal(err)
	}
	return st
}

// healthy waits until the daemon has no problems.
func (s *site) healthy() door.Status {
	s.t.Helper()
	var st door.Status
	until(s.t, "a host without problems", func() bool {
		st = s.status()
		return len(st.Problems) == 0
	})
	return st
}

// create makes a slot, with keys that are made fast.
func (s *site) create(names ...string) {
	s.t.Helper()
	for _, name := range names {
		pub, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			s.t.Fatal(err)
		}
		c, err := dialCard(s.t.Context(), s.path("card.sock"))
		if err != nil {
			s.t.Fatal(err)
		}
		_, err = c.Create(s.t.Context(), abi.SlotCreate{
			Keys: abi.KeyP256EK | abi.KeyP384EK, Banks: abi.BankSHA256, Name: name, AccessKey: [32]byte(pub),
		})
		c.Close()
		if err != nil {
			s.t.Fatalf("slot %s: %v", name, err)
		}
		s.keys[name] = key
	}
}

// destroy destroys a slot, as soon as the card knows that it is closed.
func (s *site) destroy(name string) {
	s.t.Helper()
	c, err := dialCard(s.t.Context(), s.path("card.sock"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	until(s.t, "the end of slot "+name, func() bool {
		info, err := c.Show(s.t.Context(), name)
		if err == nil {
			_, _, err = c.Destroy(s.t.Context(), info)
		}
		return err == nil
	})
}
