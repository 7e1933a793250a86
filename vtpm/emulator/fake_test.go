// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"hwvtpm/coproc"
)

// fakeSlot is a slot that notes what it is asked to do. It answers each command
// with success, unless a test chooses otherwise.
type fakeSlot struct {
	coproc.Slot // panics on what a test did not expect

	mu       sync.Mutex
	calls    []string
	locality uint8 // of the last command
	resumed  bool
	powerErr error
	resetErr error

	// answer, if set, answers commands. It runs without mu.
	answer func(cmd coproc.Command, resp []byte) (int, error)
	cancel chan struct{} // gets a value for each Cancel, if there is room
}

func (f *fakeSlot) note(call string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
}

// took returns the calls since the last time, a command by its code's name.
func (f *fakeSlot) took() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

// change lets a test change the slot while it is served.
func (f *fakeSlot) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fakeSlot) lastLocality() uint8 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.locality
}

func (f *fakeSlot) PowerOn(_ context.Context, run coproc.RunID) (coproc.PowerOnResult, error) {
	f.note("power-on " + string(run[0]+'0'))
	f.mu.Lock()
	defer f.mu.Unlock()
	return coproc.PowerOnResult{Resumed: f.resumed}, f.powerErr
}

func (f *fakeSlot) Reset(context.Context) error {
	f.note("reset")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.resetErr
}

func (f *fakeSlot) Cancel() error {
	select {
	case f.cancel <- struct{}{}:
	default:
	}
	return nil
}

var commandNames = map[uint32]string{0x17b: "random", ccShutdown: "shutdown", 0x144: "startup", ccGetCapability: "capability"}

func (f *fakeSlot) Execute(_ context.Context, cmd coproc.Command, resp []byte) (int, error) {
	name := commandNames[codeOf(cmd.Bytes)]
	if bytes.Equal(cmd.Bytes, shutdownState) {
		name += " state"
	}
	f.note(name)
	f.change(func() { f.locality = cmd.Locality })
	if f.answer != nil {
		return f.answer(cmd, resp)
	}
	return putError(resp, 0), nil
}

// fakeMover is a fakeSlot whose state moves. Its blobs are whatever was loaded.
type fakeMover struct {
	fakeSlot
	blobs map[BlobKind][]byte
}

var errBadBlob = errors.New("not a blob of ours")

func (f *fakeMover) SaveState(_ context.Context, kind BlobKind) ([]byte, error) {
	return f.blobs[kind], nil
}

func (f *fakeMover) LoadState(_ context.Context, kind BlobKind, blob []byte) error {
	if len(blob) == 0 || blob[0] == 0xff {
		return errBadBlob
	}
	f.blobs[kind] = bytes.Clone(blob)
	f.change(func() { f.resumed = kind == BlobVolatile })
	return nil
}
