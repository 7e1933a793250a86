// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	testprograms "hwvtpm/coproc/coproctest/programs"
)

var built = testprograms.New("hwvtpm-swtpm", "hwvtpm-engine")

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }

// guard bounds what only a hang keeps from happening.
const guard = time.Minute

// side is swtpm or this project, going through a scenario.
type side struct {
	*testing.T
	programs string   // folder with swtpm, swtpm_setup and swtpm_ioctl
	dir      string   // of the scenario
	states   int      // state directories made
	seen     []string // what the scenario has noted
}

// alike has swtpm and this project go through a scenario, and compares what it
// notes: for the same command lines, the same happens.
func alike(t *testing.T, scenario func(*side)) {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("set HWVTPM_TEST_ROOT=1 to run real swtpm")
	}
	theirs, err := exec.LookPath("swtpm")
	if err != nil {
		t.Fatal(err)
	}
	theirSide, ourSide := &side{T: t, programs: filepath.Dir(theirs), dir: t.TempDir()}, ourSide(t)
	scenario(theirSide)
	scenario(ourSide)
	if diff := cmp.Diff(theirSide.seen, ourSide.seen); diff != "" {
		t.Errorf("swtpm (-) and this project (+):\n%s", diff)
	}
	if len(theirSide.seen) == 0 {
		t.Error("the scenario notes nothing")
	}
}

// ourSide is this project, under swtpm's names.
func ourSide(t *testing.T) *side {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"swtpm", "swtpm_setup", "swtpm_ioctl"} {
		if err := os.Symlink(built.Path(t, "hwvtpm-swtpm"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return &side{T: t, programs: dir, dir: t.TempDir()}
}

func (s *side) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.seen = append(s.seen, strings.ReplaceAll(text, s.dir, "DIR"))
}

func (s *side) path(name string) string { return filepath.Join(s.dir, name) }

// state makes an empty state directory.
func (s *side) state() string {
	s.Helper()
	s.states++
	dir := s.path("state" + strconv.Itoa(s.states))
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.Fatal(err)
	}
	return dir
}

func (s *side) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.programs, args[0]), args[1:]...)
	cmd.Env = append(os.Environ(), "HWVTPM_SOCKET=none")
	return cmd
}

// run runs a program to its end and notes its exit code.
func (s *side) run(args ...string) {
	s.Helper()
	cmd := s.command(args...)
	// No pipe: a daemon would keep its other end.
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		s.Fatal(err)
	}
	s.note("%s: exit %d", strings.Join(args, " "), cmd.ProcessState.ExitCode())
}

// ioctl runs swtpm_ioctl and notes its exit code and output.
func (s *side) ioctl(args ...string) {
	s.Helper()
	cmd := s.command(append([]string{"swtpm_ioctl"}, args...)...)
	out, _ := cmd.Output()
	s.note("swtpm_ioctl %s: exit %d %s", args[len(args)-1], cmd.ProcessState.ExitCode(), out)
}

// server is a running "swtpm socket".
type server struct {
	side *side
	cmd  *exec.Cmd
	done chan struct{}
}

// start starts swtpm on a fresh state directory. It gets files from number 3 on.
func (s *side) start(files []*os.File, args ...string) *server {
	s.Helper()
	p := &server{side: s, done: make(chan struct{})}
	p.cmd = s.command(append([]string{"swtpm", "socket", "--tpm2", "--tpmstate", "dir=" + s.state()}, args...)...)
	p.cmd.ExtraFiles = files
	if err := p.cmd.Start(); err != nil {
		s.Fatal(err)
	}
	for _, f := range files {
		f.Close()
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	s.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// ends waits until it ends and notes how.
func (p *server) ends(why string) {
	p.side.Helper()
	select {
	case <-p.done:
		p.side.note("ends with %s: exit %d", why, p.cmd.ProcessState.ExitCode())
	case <-time.After(guard):
		p.side.Fatalf("%s did not end with %s", p.cmd.Path, why)
	}
}

// dial connects as soon as there is something to connect to.
func (s *side) dial(network, address string) net.Conn {
	s.Helper()
	for limit := time.Now().Add(guard); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial(network, address)
		if err == nil {
			s.Cleanup(func() { c.Close() })
			return c
		}
		if time.Now().After(limit) {
			s.Fatal(err)
		}
	}
}

// Commands for the TPM.
var (
	getRandom  = []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8}
	startup    = []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0}
	getBanks   = []byte{0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7a, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1}
	getHandles = []byte{0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7a, 0, 0, 0, 1, 0x81, 0, 0, 0, 0, 0, 0, 99}
)

// tpm gives the TPM a command and notes the size and code of the response.
func (s *side) tpm(what string, c net.Conn, cmd []byte) []byte {
	s.Helper()
	if err := c.SetDeadline(time.Now().Add(guard)); err != nil {
		s.Fatal(err)
	}
	_, err := c.Write(cmd)
	buf := make([]byte, 4096)
	var n int
	if err == nil {
		n, _, err = readMessage(c, buf)
	}
	switch {
	case err == nil:
		s.note("%s: %d bytes, code %#x", what, n, order.Uint32(buf[6:]))
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		s.note("%s: hung up", what)
	default:
		s.Fatalf("%s: %v", what, err)
	}
	return bytes.Clone(buf[:n])
}

// files notes which files are in the scenario's folder, with their modes.
func (s *side) files() {
	s.Helper()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		s.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			s.Fatal(err)
		}
		s.note("%s %s", info.Mode(), e.Name())
	}
}

// freePort finds a TCP port that nobody has.
func (s *side) freePort() string {
	s.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}
