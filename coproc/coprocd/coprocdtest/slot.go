// SPDX-License-Identifier: Apache-2.0

package coprocdtest

import (
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
)

func refuse(status abi.Status, format string, args ...any) (abi.Status, []byte, []int) {
	return status, fmt.Appendf(nil, format, args...), nil
}

// Slot is a slot, with a TPM that answers every command with success and 4
// bytes: how many commands it has executed. It starts over with each run.
type Slot struct {
	wg *sync.WaitGroup

	mu       sync.Mutex // guards what follows
	info     abi.SlotInfo
	locked   bool
	data     int // our end of the open channel, 0: none
	run      [abi.RunIDSize]byte
	pristine bool
	count    uint32
	seq      uint64 // of the last command, answered by count
	commands [][]byte
	der      []byte // certificate of its endorsement key
	survives func() bool
}

// Survives has f say for each command, before it is executed, whether the worker
// survives it. Nil: it does.
func (s *Slot) Survives(f func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.survives = f
}

// dies tells whether the worker dies over a submission.
func (s *Slot) dies(sub abi.Submission) bool {
	s.mu.Lock()
	f := s.survives
	s.mu.Unlock()
	return sub.Op == abi.OpExecute && f != nil && !f()
}

// Info describes the slot.
func (s *Slot) Info() abi.SlotInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.info
	switch {
	case s.data != 0:
		i.Life = abi.LifeLive
	case s.locked:
		i.Life = abi.LifeLocked
	}
	return i
}

// Commands are the TPM commands that were executed.
func (s *Slot) Commands() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([][]byte(nil), s.commands...)
}

// Drop ends the slot's channel, as if its worker was killed.
func (s *Slot) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data != 0 {
		unix.Shutdown(s.data, unix.SHUT_RDWR)
	}
}

func (s *Slot) setLocked(locked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locked = locked
}

func (s *Slot) eks() []abi.EK {
	return []abi.EK{{Handle: 0x81010001, Name: append([]byte{0, 0x0b}, make([]byte, 32)...)}}
}

// certificate answers OpEKCertificate.
func (s *Slot) certificate(payload []byte) (abi.Status, []byte, []int) {
	handle, err := abi.ParseHandle(payload)
	if err != nil || handle != s.eks()[0].Handle {
		return refuse(abi.StatusNoSlot, "the slot has no such key")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := abi.EKCertificate{Handle: handle, Public: []byte("public area"), DER: s.der}
	if s.der != nil {
		c.Index = abi.CertificateIndex(handle)
	}
	return abi.StatusOK, abi.AppendEKCertificate(nil, &c), nil
}

// open gives the client's ends of a new channel, or nil if there is one.
func (s *Slot) open() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data != 0 {
		return nil
	}
	var pairs [2][2]int
	for i := range pairs {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			panic(err) // the test has used up its descriptors
		}
		pairs[i] = p
	}
	s.data = pairs[0][0]
	s.wg.Go(func() { s.serve(pairs[0][0], pairs[1][0]) })
	return []int{pairs[0][1], pairs[1][1]}
}

// serve is the worker.
func (s *Slot) serve(data, ctl int) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		unix.Close(data)
		unix.Close(ctl)
		s.data = 0
	}()
	buf := make([]byte, abi.MaxMessage+1)
	for {
		n, err := unix.Read(data, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		sub, err := abi.ParseSubmission(buf[:n])
		if err != nil || s.dies(sub) {
			return
		}
		status, payload := s.execute(sub)
		if err := unix.Sendto(data, Completion(sub, status, payload), unix.MSG_NOSIGNAL, nil); err != nil {
			return
		}
	}
}

func (s *Slot) execute(sub abi.Submission) (abi.Status, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch sub.Op {
	case abi.OpIdentify:
		return abi.StatusOK, abi.AppendIdentity(nil, &abi.Identity{
			Version: abi.Version, EngineVersion: 0x902, Slots: 1, MaxPayload: abi.MaxPayload,
			Generation: 1, LastSeq: s.seq, SlotID: s.info.ID,
		})
	case abi.OpPowerOn:
		run := [abi.RunIDSize]byte(sub.Payload)
		r := abi.PowerOnReply{Resumed: run == s.run, LastSeq: s.seq}
		if !r.Resumed {
			s.run, s.pristine, s.count = run, true, 0
		}
		r.Pristine = s.pristine
		return abi.StatusOK, abi.AppendPowerOnReply(nil, r)
	case abi.OpReset:
		s.pristine, s.count = true, 0
	case abi.OpExecute:
		return s.command(sub)
	case abi.OpHealth:
		return abi.StatusOK, abi.AppendHealthReply(nil, &abi.HealthReply{State: abi.SlotRunning, EngineVersion: 0x902})
	}
	return abi.StatusOK, nil
}

// command executes a TPM command, once for each number.
func (s *Slot) command(sub abi.Submission) (abi.Status, []byte) {
	if sub.Seq < s.seq {
		return abi.StatusSequence, nil
	}
	if sub.Seq > s.seq {
		s.seq, s.pristine = sub.Seq, false
		s.count++
		s.commands = append(s.commands, append([]byte(nil), sub.Payload...))
	}
	resp := []byte{0x80, 1, 0, 0, 0, 14, 0, 0, 0, 0}
	return abi.StatusOK, binary.BigEndian.AppendUint32(resp, s.count)
}
