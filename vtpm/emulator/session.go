// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
)

// session is one connection of one machine. A command reaches the TPM only while
// it runs:
//
//	       INIT                STOP
//	off ---------> running ---------> off      SHUTDOWN, hang-up: the end
//	                |   ^
//	                +---+ INIT
//
// The control goroutine owns the session. What it shares with the data channel's
// goroutine is atomic or guarded by mu.
type session struct {
	server     *Server
	slot       coproc.Slot
	log        hclog.Logger
	control    requests
	greeted    bool
	run        coproc.RunID
	data       *dataChannel // nil: none yet
	out        []byte       // scratch space of answers
	properties []uint32     // of the TPM, once it has told them

	established bool // a hash sequence was begun: see hashStart

	locality   atomic.Uint32 // of the commands that follow
	bufferSize atomic.Uint32
	running    atomic.Bool // written by the control goroutine with mu held
	ending     atomic.Bool // no command may begin any more
	quiet      atomic.Bool // a failure of the slot has been logged already

	mu       sync.Mutex // held while a command runs and while the power changes
	dirty    bool       // a command ran since INIT, and TPM2_Shutdown was not the last
	suspends bool       // a TPM2_Shutdown(STATE) succeeded since INIT
	moved    bool       // the whole state went out, and no command ran since
	set      bool       // a part of a state was set for the next INIT
	volatile bool       // which was a volatile one
	hash     hashing    // a hash sequence in the making
	scratch  []byte     // for responses to the session's own commands
}

func newSession(server *Server, conn *net.UnixConn) *session {
	s := &session{
		server:  server,
		slot:    server.cfg.Slot,
		log:     server.cfg.Logger,
		control: requests{conn: conn, patience: server.cfg.Patience},
		out:     make([]byte, 0, 512),
		scratch: make([]byte, coproc.MaxTransfer),
	}
	s.bufferSize.Store(maxBuffer)
	return s
}

// serve answers requests until the session is over.
func (s *session) serve(peer Peer) error {
	defer s.end()
	for {
		r, err := s.control.next()
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return nil // a peer that dies leaves answers unread
		}
		if err != nil {
			return err
		}
		if !s.greeted {
			s.greeted = true
			s.run = s.server.cfg.OnConnect(peer)
		}
		over, err := s.handle(&r)
		closeFD(r.fd)
		if over || err != nil {
			return err
		}
	}
}

// end lets go of the machine, of which nothing more will come: a command that
// runs is canceled, and the TPM shut down in order.
func (s *session) end() {
	s.ending.Store(true)
	if s.data != nil {
		s.data.shutdown()
		s.cancelUntil(s.data.done)
		<-s.data.told
	}
	s.powerOff()
	if s.server.lender == nil {
		return
	}
	s.server.powered = false
	if err := s.server.lender.release(); err != nil {
		s.log.Error("letting go of the slot failed", "error", err)
	}
}

// handle answers one request. over: it was the last one.
func (s *session) handle(r *request) (over bool, err error) {
	switch r.cmd {
	case cmdSetStateBlob:
		return s.setStateBlob(r.body)
	case cmdHashData:
		return s.hashData(r.body)
	}
	if res := admit(r.cmd, r.body, s.server.caps, s.running.Load()); res != resOK {
		return false, s.reply(res)
	}
	switch r.cmd {
	case cmdGetStateBlob:
		return false, s.getStateBlob(r.body)
	case cmdGetInfo:
		return false, s.getInfo(r.body)
	case cmdShutdown:
		s.powerOff()
		return true, s.reply(resOK)
	}
	res, rest := s.simple(r)
	return false, s.reply(res, rest...)
}

// simple serves a request whose answer is a result and a few words.
func (s *session) simple(r *request) (result, []uint32) {
	switch r.cmd {
	case cmdGetCapability:
		return resOK, []uint32{s.server.caps}
	case cmdInit:
		return s.powerOn(), nil
	case cmdStop:
		s.powerOff()
		return resOK, nil
	case cmdGetTPMEstablished:
		return resOK, []uint32{s.establishedWord()}
	case cmdResetTPMEstablished:
		return s.resetEstablished(r.body[0]), nil
	case cmdHashStart:
		return s.hashStart(), nil
	case cmdHashEnd:
		return s.hashEnd(), nil
	case cmdSetLocality:
		return s.setLocality(r.body[0]), nil
	case cmdCancelTPMCmd:
		return s.cancel(), nil
	case cmdSetDataFD:
		return s.setDataFD(r), nil
	case cmdSetBufferSize:
		return s.setBufferSize(order.Uint32(r.body))
	case cmdGetConfig:
		return resOK, []uint32{s.configFlags()}
	case cmdLockStorage:
		return s.lockStorage(), nil
	}
	return resBadOrdinal, nil
}

// reply answers a request. An error is a result alone.
func (s *session) reply(res result, rest ...uint32) error {
	if res != resOK {
		s.server.counters.refused.Add(1)
		return s.control.answer(putResult(s.out, res))
	}
	s.out = putResult(s.out, resOK)
	for _, word := range rest {
		s.out = order.AppendUint32(s.out, word)
	}
	return s.control.answer(s.out)
}
