// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi/tpmcmd"
	"hwvtpm/firmware/wire"
)

// meter tells the card what the worker does. Nil, it tells nobody.
type meter struct {
	page  *wire.Page
	start time.Time
	mono  int64 // CLOCK_MONOTONIC at start, ns
	began int64 // when the submission did
	class tpmcmd.Class
}

// newMeter begins with a page of zeros, but for the sequence number, on which
// the card relies if the worker dies at once.
func newMeter(page *wire.Page) (*meter, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return nil, err
	}
	page.Reset()
	return &meter{page: page, start: time.Now(), mono: ts.Nano()}, nil
}

// now is CLOCK_MONOTONIC without a system call.
func (m *meter) now() int64 { return m.mono + int64(time.Since(m.start)) }

// begin takes down that a submission was read.
func (m *meter) begin() {
	if m == nil {
		return
	}
	m.began = m.now()
	m.page.Touch(m.began)
	m.page.SetBusy(true)
}

// command takes down which command is about to run.
func (m *meter) command(cmd []byte) {
	if m != nil {
		m.class = tpmcmd.ClassOf(cmd)
	}
}

// response takes down what came of it.
func (m *meter) response(resp []byte) {
	if m != nil {
		m.page.Observe(m.class, tpmcmd.ResultOf(resp), uint64(m.now()-m.began))
	}
}

// publish tells what the slot is like, before the completion leaves.
func (m *meter) publish(s *slot) {
	if m == nil {
		return
	}
	m.page.SetSeq(s.seq)
	m.page.SetState(s.phase)
	m.page.SetCounters(s.stats)
	m.page.SetPosition(s.bound.generation, s.bound.epoch)
}

// end takes down that the completion has left.
func (m *meter) end() {
	if m != nil {
		m.page.SetBusy(false)
	}
}
