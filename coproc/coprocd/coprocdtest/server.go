// SPDX-License-Identifier: Apache-2.0

package coprocdtest

import (
	"net"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
)

// Answer is what a client gets for a submission.
type Answer struct {
	Packets [][]byte // each is sent by itself; none: silence
	Files   []int    // descriptors that go with the first packet; closed after
	Hang    bool     // keep the connection open, and say nothing more
}

// Server is a running daemon.
type Server struct {
	Card *Card

	t    testing.TB
	path string
	wg   sync.WaitGroup

	mu    sync.Mutex // guards what follows
	hook  func(sub abi.Submission, a *Answer)
	ln    *net.UnixListener
	conns map[*net.UnixConn]bool
}

// Start starts a daemon with no slots. It ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{Card: newCard(t), t: t, path: filepath.Join(t.TempDir(), "coprocd"), conns: map[*net.UnixConn]bool{}}
	s.Listen()
	t.Cleanup(func() {
		s.Stop()
		s.Card.close()
		s.wg.Wait()
	})
	return s
}

// Path is the path of the socket.
func (s *Server) Path() string { return s.path }

// Hook has f change each answer before it is sent. Nil: none.
func (s *Server) Hook(f func(sub abi.Submission, a *Answer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = f
}

// Listen starts to serve, again after Stop, as a daemon of another epoch.
func (s *Server) Listen() {
	s.t.Helper()
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: s.path, Net: "unixpacket"})
	if err != nil {
		s.t.Fatal(err)
	}
	s.Card.begin()
	s.mu.Lock()
	s.ln = ln
	s.mu.Unlock()
	s.wg.Go(func() {
		for {
			c, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.serve(c) })
		}
	})
}

// Stop ends the daemon as kill -9 would: listener, connections and slots. What
// the slots remember stays.
func (s *Server) Stop() {
	s.mu.Lock()
	s.ln.Close()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.Card.dropAll()
}

func (s *Server) serve(c *net.UnixConn) {
	s.mu.Lock()
	s.conns[c] = true
	s.mu.Unlock()
	defer func() {
		c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	ses := &session{card: s.Card}
	buf := make([]byte, abi.MaxMessage+1)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		sub, err := abi.ParseSubmission(buf[:n])
		if err != nil {
			s.t.Errorf("client sent %x: %v", buf[:n], err)
			return
		}
		if !s.send(c, s.answer(ses, sub)) {
			return
		}
	}
}

// answer executes a submission and lets the hook have its way.
func (s *Server) answer(ses *session, sub abi.Submission) Answer {
	status, payload, files := ses.execute(sub)
	a := Answer{Packets: [][]byte{Completion(sub, status, payload)}, Files: files}
	s.mu.Lock()
	hook := s.hook
	s.mu.Unlock()
	if hook != nil {
		hook(sub, &a)
	}
	return a
}

// Completion is the packet that answers sub.
func Completion(sub abi.Submission, status abi.Status, payload []byte) []byte {
	return abi.AppendCompletion(nil, &abi.Completion{Op: sub.Op, Status: status, Slot: sub.Slot, Seq: sub.Seq, Payload: payload})
}

func (s *Server) send(c *net.UnixConn, a Answer) bool {
	defer func() {
		for _, fd := range a.Files {
			unix.Close(fd)
		}
	}()
	for i, p := range a.Packets {
		var rights []byte
		if i == 0 && len(a.Files) > 0 {
			rights = unix.UnixRights(a.Files...)
		}
		if _, _, err := c.WriteMsgUnix(p, rights, nil); err != nil {
			return false
		}
	}
	return a.Hang || len(a.Packets) > 0
}
