// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"strconv"
	"testing"
)

// pair makes two connected sockets: one for this test, one to hand over.
func (s *side) pair() (net.Conn, *os.File) {
	s.Helper()
	ours, theirs, err := unixPair()
	if err != nil {
		s.Fatal(err)
	}
	defer theirs.Close()
	f, err := theirs.File()
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { ours.Close() })
	return ours, f
}

// machine connects to the control channel and gives it a data channel, as QEMU
// does.
func (s *side) machine(socket string) (c *control, data net.Conn) {
	s.Helper()
	c = &control{conn: s.dial("unix", socket)}
	data, theirs := s.pair()
	defer theirs.Close()
	if err := c.sendFD(cmdSetDataFD, int(theirs.Fd())); err != nil {
		s.Fatal(err)
	}
	if _, err := c.ask(cmdInit, make([]byte, 4), 0); err != nil {
		s.Fatal(err)
	}
	return c, data
}

// With --terminate a connection for commands is the last one. Control connections
// without one may come before, such as swtpm_ioctl's.
func TestTerminateIsAlike(t *testing.T) {
	for name, scenario := range map[string]func(*side){
		"tcp": func(s *side) {
			port, control := s.freePort(), s.freePort()
			p := s.start(nil, "--terminate", "--server", "type=tcp,port="+port, "--ctrl", "type=tcp,port="+control)
			s.dial("tcp", "127.0.0.1:"+control).Close()
			c := s.dial("tcp", "127.0.0.1:"+port)
			s.tpm("no power yet", c, getRandom)
			s.ioctl("--tcp", ":"+control, "-i")
			s.tpm("TPM2_Startup", c, startup)
			c.Close()
			p.ends("the data connection")
		},
		"machine": func(s *side) {
			socket := s.path("control")
			p := s.start(nil, "--terminate", "--ctrl", "type=unixio,path="+socket)
			s.dial("unix", socket).Close()
			s.ioctl("--unix", socket, "-i")
			c, data := s.machine(socket)
			s.tpm("TPM2_Startup", data, startup)
			c.conn.Close()
			s.tpm("without a control connection", data, getRandom)
			s.ioctl("--unix", socket, "-e")
			data.Close()
			p.ends("the data channel")
			s.files()
		},
		"started machine": func(s *side) {
			socket := s.path("control")
			p := s.start(nil, "--terminate", "--ctrl", "type=unixio,path="+socket, "--flags", "startup-clear")
			c, data := s.machine(socket)
			s.tpm("TPM2_Startup", data, startup)
			c.conn.Close()
			data.Close()
			p.ends("the data channel")
		},
		"machine without the option": func(s *side) {
			socket := s.path("control")
			p := s.start(nil, "--ctrl", "type=unixio,path="+socket)
			for range 2 {
				c, data := s.machine(socket)
				s.tpm("TPM2_Startup", data, startup)
				c.conn.Close()
				data.Close()
			}
			s.ioctl("--unix", socket, "-s")
			p.ends("shutdown")
		},
	} {
		t.Run(name, func(t *testing.T) { alike(t, scenario) })
	}
}

// Sockets and files may be handed over as descriptors.
func TestDescriptorsAreAlike(t *testing.T) {
	for name, scenario := range map[string]func(*side){
		"data": func(s *side) {
			c, theirs := s.pair()
			p := s.start([]*os.File{theirs}, "--fd", "3", "--flags", "startup-clear")
			s.tpm("started already", c, getRandom)
			c.Close()
			p.ends("the connection")
		},
		"data of a server": func(s *side) {
			c, theirs := s.pair()
			socket := s.path("control")
			p := s.start([]*os.File{theirs}, "--server", "type=tcp,fd=3", "--ctrl", "type=unixio,path="+socket, "--flags", "startup-clear")
			s.tpm("started already", c, getRandom)
			s.ioctl("--unix", socket, "-s")
			p.ends("shutdown")
		},
		"control": func(s *side) {
			c, theirs := s.pair()
			p := s.start([]*os.File{theirs}, "--ctrl", "type=unixio,clientfd=3")
			ctl := &control{conn: c}
			_, err := ctl.ask(cmdInit, make([]byte, 4), 0)
			s.note("INIT: %v", err)
			_, err = ctl.ask(cmdShutdown, nil, 0)
			s.note("SHUTDOWN: %v", err)
			p.ends("shutdown")
		},
		"listening control": func(s *side) {
			socket := s.path("control")
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
			if err != nil {
				s.Fatal(err)
			}
			defer ln.Close()
			f, err := ln.File()
			if err != nil {
				s.Fatal(err)
			}
			p := s.start([]*os.File{f}, "--ctrl", "type=unixio,fd=3")
			s.ioctl("--unix", socket, "-i")
			s.ioctl("--unix", socket, "-e")
			s.ioctl("--unix", socket, "-s")
			p.ends("shutdown")
		},
		"pid and log": func(s *side) {
			pid, err := os.Create(s.path("pid"))
			if err != nil {
				s.Fatal(err)
			}
			log, err := os.Create(s.path("log"))
			if err != nil {
				s.Fatal(err)
			}
			socket := s.path("control")
			p := s.start([]*os.File{pid, log}, "--ctrl", "type=unixio,path="+socket, "--pid", "fd=3", "--log", "fd=4,level=20,prefix=mine:")
			s.dial("unix", socket).Close()
			s.ioctl("--unix", socket, "-i") // answered after all is in place
			text, err := os.ReadFile(s.path("pid"))
			s.note("its own process id: %v, %v", string(text) == strconv.Itoa(p.cmd.Process.Pid), err)
			s.ioctl("--unix", socket, "-s")
			p.ends("shutdown")
			info, err := os.Stat(s.path("log"))
			s.note("something is logged: %v", err == nil && info.Size() > 0)
		},
	} {
		t.Run(name, func(t *testing.T) { alike(t, scenario) })
	}
}
