// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// supervised is the storage of a worker that a card is above of: the card writes
// the sealed states, and has opened the volatile file. The slot's goroutine owns
// it.
type supervised struct {
	fd     int    // supervisor channel
	shared []byte // shared memory
	vol    int    // volatile file; -1 if there is none
	boot   [16]byte

	mayRestore bool // the card permits one replace of an older state
	older      bool // the next replace is that

	until  int64 // the client alone is waited for, CLOCK_MONOTONIC in ns: see next
	parked bool  // the card wants the worker to exit
	broken error // the worker must exit, and answer nobody before
	msg    [wire.MaxMessage]byte
}

var _ storage = (*supervised)(nil)

// errProtocol: the card sent what it must not.
var errProtocol = errors.New("card broke the protocol of the supervisor channel")

// bootID implements storage.
func (u *supervised) bootID() [16]byte { return u.boot }

// image implements storage.
func (u *supervised) image() []byte {
	return u.shared[wire.BlobOffset:wire.BlobOffset:wire.SharedSize]
}

// replace implements storage. An order to park that comes meanwhile is kept for
// later: the command that is being served comes first.
func (u *supervised) replace(blob []byte) error {
	if u.broken != nil {
		return fmt.Errorf("%w: %w", errUnsure, u.broken)
	}
	if len(blob) == 0 || len(blob) > wire.MaxBlob || &blob[0] != &u.shared[wire.BlobOffset] {
		return fmt.Errorf("state of %d bytes does not fit the shared memory", len(blob))
	}
	save := wire.Save{Length: uint32(len(blob)), Older: u.older}
	u.older = false
	err := wire.Send(u.fd, wire.AppendSave(u.msg[:0], save))
	for err == nil {
		var saved wire.Saved
		var done bool
		if saved, done, err = u.receive(); !done {
			continue
		}
		switch saved.Status {
		case abi.StatusOK:
			u.mayRestore = u.mayRestore && !save.Older
			return nil
		case abi.StatusStorage:
			return errors.New("the card could not write it")
		}
		err = fmt.Errorf("card says %v", saved.Status)
	}
	u.broken = err
	return fmt.Errorf("%w: %w", errUnsure, err)
}

// receive takes one message of the card. done: it was a Saved.
func (u *supervised) receive() (saved wire.Saved, done bool, err error) {
	n, fds, err := wire.Receive(u.fd, u.msg[:])
	if err != nil {
		return saved, false, err
	}
	wire.CloseAll(fds)
	msg := u.msg[:n]
	switch wire.MessageKind(msg) {
	case wire.KindPark:
		err = wire.ParsePark(msg)
		u.parked = err == nil
	case wire.KindSaved:
		saved, err = wire.ParseSaved(msg)
		done = err == nil
	default:
		err = fmt.Errorf("message of kind %d: %w", wire.MessageKind(msg), errProtocol)
	}
	return saved, done, err
}

// lull is the longest time that a worker waits for its client without a look at the
// card.
const lull = 10 * time.Millisecond

// next reads a submission from the data socket, in which reads take at most a lull,
// unless there is the order to exit. A client has mostly not sent its last one, and to
// wait for it alone takes one system call instead of two. So the card is looked at
// first; then after each lull, and before the first command after that long. An
// order that comes meanwhile is obeyed that much later: what was read is answered.
// now is when the last command began.
func (u *supervised) next(data int, b []byte, now int64) (n int, exit bool, err error) {
	for alone := now < u.until; ; alone = false {
		if !alone || u.parked {
			if exit, err := u.wait(data); exit {
				return 0, true, err
			}
			u.until = now + int64(lull)
		}
		n, err := readPacket(data, b)
		if !errors.Is(err, unix.EAGAIN) {
			return n, false, err
		}
	}
}

// limitReads makes reads of the data socket take at most a lull.
func limitReads(data int) error {
	tv := unix.NsecToTimeval(int64(lull))
	if err := unix.SetsockoptTimeval(data, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("limit reads: %w", err)
	}
	return nil
}

// wait waits for a submission in the data socket, or for the order to exit. Of
// the two the order comes first: a submission that was not read is the next
// worker's.
func (u *supervised) wait(data int) (exit bool, err error) {
	fds := [...]unix.PollFd{{Fd: int32(data), Events: unix.POLLIN}, {Fd: int32(u.fd), Events: unix.POLLIN}}
	for !u.parked {
		_, err := unix.Poll(fds[:], -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return true, fmt.Errorf("wait: %w", err)
		case fds[1].Revents != 0:
			if err := u.command(); err != nil {
				return true, err
			}
		case fds[0].Revents != 0:
			return false, nil
		}
	}
	return true, nil
}

// command obeys what the card sends between two submissions.
func (u *supervised) command() error {
	_, done, err := u.receive()
	if done {
		return fmt.Errorf("nothing was to be saved: %w", errProtocol)
	}
	return err
}

// goBack implements storage.
func (u *supervised) goBack() error {
	if !u.mayRestore {
		return fmt.Errorf("to go back on purpose: vtpmctl slot adopt NAME --restore --reason TEXT, then restore again: %w", sealed.ErrRollback)
	}
	u.older = true
	return nil
}

// mapVolatile implements storage.
func (u *supervised) mapVolatile() ([]byte, error) { return mapVolatile(u.vol) }

// freshVolatile implements storage, in place, since it has no directory. Nothing
// counts from the first store on, and nothing that is left can come to count
// again: the places of both checkpoints are emptied.
func (u *supervised) freshVolatile() ([]byte, error) {
	mem, err := mapVolatile(u.vol)
	if errors.Is(err, errCorrupt) {
		if err = unix.Ftruncate(u.vol, 0); err == nil {
			err = allocate(u.vol)
		}
		if err != nil {
			return nil, fmt.Errorf("allocate volatile file: %w", err)
		}
		mem, err = mapVolatile(u.vol)
	}
	if err != nil {
		return nil, err
	}
	v := &volatileFile{mem: mem}
	v.erase()
	for _, part := range [][]byte{mem[:volHeaderSize], v.slot(0)[:ckptHeaderSize], v.slot(1)[:ckptHeaderSize]} {
		clear(part)
	}
	return mem, nil
}

// close implements storage. All that there is to close is the worker's.
func (u *supervised) close() {}

// ended tells whether an error means that the card is gone, which is no fault.
func ended(err error) bool { return errors.Is(err, io.EOF) }
