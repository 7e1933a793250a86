// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// daemon starts swtpm in the background and returns its process id.
func (s *side) daemon(state string, args ...string) int {
	s.Helper()
	s.run(append([]string{"swtpm", "socket", "--tpm2", "--daemon", "--tpmstate", "dir=" + state, "--pid", "file=" + s.path("pid")}, args...)...)
	text, err := os.ReadFile(s.path("pid"))
	if err != nil {
		s.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text)) // not even the end of a line
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe"); err == nil && strings.Contains(filepath.Base(exe), "swtpm") {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return pid
}

// gone waits for the end of a daemon, which is nobody's child here.
func (s *side) gone(pid int) {
	s.Helper()
	for limit := time.Now().Add(guard); !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH); time.Sleep(10 * time.Millisecond) {
		stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(limit) {
			s.Fatalf("process %d does not end", pid)
		}
	}
}

func TestDaemonIsAlike(t *testing.T) {
	alike(t, func(s *side) {
		control := s.path("control")
		pid := s.daemon(s.state(), "--ctrl", "type=unixio,path="+control, "--log", "file="+s.path("log"))
		s.files()
		cwd, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
		s.note("works in %s, %v", cwd, err)
		for fd := range 3 {
			to, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/fd/" + strconv.Itoa(fd))
			s.note("descriptor %d is %s, %v", fd, to, err)
		}
		s.ioctl("--unix", control, "-i")
		s.ioctl("--unix", control, "-h", "data")
		s.ioctl("--unix", control, "-e")
		s.ioctl("--unix", control, "-s")
		s.gone(pid)
		s.files()
		s.run("swtpm", "socket", "--tpm2", "--daemon", "--tpmstate", "dir="+s.state(), "--ctrl", "type=unixio,path="+control, "--log", "file="+s.path("none/log"))
		s.run("swtpm", "socket", "--tpm2", "--daemon", "--tpmstate", "dir="+s.state(), "--ctrl", "type=unixio,path="+control, "--pid", "file="+s.path("none/pid"))
	})
}

// A user of the system's that both can become.
func TestRunAsIsAlike(t *testing.T) {
	alike(t, func(s *side) {
		state := s.state()
		for _, dir := range []string{state, s.dir, filepath.Dir(s.dir)} {
			if err := os.Chmod(dir, 0o777); err != nil {
				s.Fatal(err)
			}
		}
		pid := s.daemon(state, "--runas", "daemon", "--ctrl", "type=unixio,path="+s.path("control"))
		status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		if err != nil {
			s.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			if name, _, _ := strings.Cut(line, ":"); name == "Uid" || name == "Gid" || name == "Groups" {
				s.note("%s", strings.TrimSpace(line))
			}
		}
		s.ioctl("--unix", s.path("control"), "-i")
		s.ioctl("--unix", s.path("control"), "-s")
		s.gone(pid)
		s.run("swtpm", "socket", "--tpm2", "--daemon", "--tpmstate", "dir="+state, "--ctrl", "type=unixio,path="+s.path("c"), "--runas", "nobody-of-this-name")
	})
}

// The TPM stays as it is while connections, of both kinds, come and go.
func TestTCPIsAlike(t *testing.T) {
	alike(t, func(s *side) {
		port, control := s.freePort(), s.freePort()
		p := s.start(nil, "--server", "type=tcp,port="+port, "--ctrl", "type=tcp,port="+control, "--flags", "not-need-init,startup-clear")
		c := s.dial("tcp", "127.0.0.1:"+port)
		s.tpm("started already", c, getRandom)
		c.Close()
		c = s.dial("tcp", "127.0.0.1:"+port)
		s.tpm("after hanging up", c, getRandom)
		s.ioctl("--tcp", "127.0.0.1:"+control, "-e")
		s.ioctl("--tcp", ":"+control, "-b 0")
		s.tpm("over control connections", c, getRandom)
		s.ioctl("--tcp", ":"+control, "--stop")
		s.tpm("stopped", c, getRandom)
		s.ioctl("--tcp", ":"+control, "-i")
		s.tpm("after power-on", c, getRandom)
		s.tpm("TPM2_Startup", c, startup)
		s.tpm("TPM2_Startup again", c, startup)
		s.ioctl("--tcp", ":"+control, "-s")
		p.ends("shutdown")
		s.tpm("after the end", c, getRandom)
	})
}

func TestDisconnectIsAlike(t *testing.T) {
	alike(t, func(s *side) {
		for _, option := range []string{"--server=type=tcp,disconnect,port=", "--port="} {
			port := s.freePort()
			p := s.start(nil, option+port, "--flags", "startup-clear")
			for range 2 {
				c := s.dial("tcp", "127.0.0.1:"+port)
				s.tpm("first", c, getRandom)
				s.tpm("second", c, getRandom)
			}
			p.cmd.Process.Signal(syscall.SIGTERM)
			p.ends("SIGTERM")
		}
		// A port that another process has.
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			s.Fatal(err)
		}
		defer ln.Close()
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		s.start(nil, "--server", "type=tcp,port="+port).ends("a port in use")
	})
}
