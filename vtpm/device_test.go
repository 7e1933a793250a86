// SPDX-License-Identifier: Apache-2.0

package vtpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/virtqueue"
)

// scriptSlot is a slot whose answers a test chooses. The real one is covered by
// the conformance suite of coproc and by the programs' tests.
type scriptSlot struct {
	coproc.Slot // panics on what a test did not expect

	answer   func(cmd coproc.Command, resp []byte) (int, error)
	resetErr error
	powerErr error

	commands []coproc.Command
	powerOns []coproc.RunID
	resumed  bool
	resets   int
	cancels  int
}

func (s *scriptSlot) Execute(_ context.Context, cmd coproc.Command, resp []byte) (int, error) {
	cmd.Bytes = bytes.Clone(cmd.Bytes)
	s.commands = append(s.commands, cmd)
	return s.answer(cmd, resp)
}

func (s *scriptSlot) PowerOn(_ context.Context, run coproc.RunID) (coproc.PowerOnResult, error) {
	s.powerOns = append(s.powerOns, run)
	return coproc.PowerOnResult{Resumed: s.resumed}, s.powerErr
}

func (s *scriptSlot) Reset(context.Context) error {
	if s.resetErr != nil {
		return s.resetErr
	}
	s.resets++
	return nil
}

func (s *scriptSlot) Cancel() error { s.cancels++; return nil }

// sized is a TPM message with the given code that says its own length.
func sized(code uint32, n int) []byte {
	b := make([]byte, n)
	binary.BigEndian.PutUint16(b, tagNoSessions)
	binary.BigEndian.PutUint32(b[2:], uint32(n))
	binary.BigEndian.PutUint32(b[6:], code)
	for i := tpmHeaderBytes; i < n; i++ {
		b[i] = byte(i)
	}
	return b
}

func answerWith(resp []byte) func(coproc.Command, []byte) (int, error) {
	return func(_ coproc.Command, dst []byte) (int, error) { return copy(dst, resp), nil }
}

func newTestDevice(t *testing.T, slot *scriptSlot, edit func(*Config)) *Device {
	t.Helper()
	cfg := Config{Slot: slot, Policy: PolicyKeep}
	if edit != nil {
		edit(&cfg)
	}
	d, err := NewDevice(cfg)
	if err != nil {
		t.Fatalf("NewDevice: %v", err)
	}
	if err := d.PowerOn(t.Context(), coproc.RunID{1}); err != nil {
		t.Fatalf("PowerOn: %v", err)
	}
	return d
}

func chain(in []byte, writable int) *virtqueue.Request {
	return &virtqueue.Request{In: in, InTotal: uint32(len(in)), Out: make([]byte, writable), OutTotal: uint32(writable)}
}

func wantRC(t *testing.T, out []byte, rc uint32) {
	t.Helper()
	want := make([]byte, tpmHeaderBytes)
	putError(want, rc)
	if !bytes.Equal(out, want) {
		t.Errorf("response = %x, want %x", out, want)
	}
}

func TestHandlePlain(t *testing.T) {
	resp := sized(0, 40)
	slot := &scriptSlot{answer: answerWith(resp)}
	d := newTestDevice(t, slot, nil)
	cmd := sized(0x17b, 12)
	req := chain(cmd, BufferSize)

	n := d.Handle(req)

	if !bytes.Equal(req.Out[:n], resp) {
		t.Errorf("Handle wrote %x, want %x", req.Out[:n], resp)
	}
	got := slot.commands[0]
	if !bytes.Equal(got.Bytes, cmd) || got.Locality != 0 || got.Timeout != defaultTimeout {
		t.Errorf("the slot got %+v", got)
	}
}

func TestHandleFramed(t *testing.T) {
	resp := sized(0, 40)
	slot := &scriptSlot{answer: answerWith(resp)}
	d := newTestDevice(t, slot, nil)
	if err := d.Start(0, 1<<FeatureFramed, 0); err != nil {
		t.Fatal(err)
	}
	cmd := sized(0x131, 30)
	req := chain(append([]byte{3}, cmd...), BufferSize+1)
	for i := range req.Out {
		req.Out[i] = 0xee
	}

	n := d.Handle(req)

	if int(n) != BufferSize+1 {
		t.Errorf("Handle = %d, want the whole writable part, %d", n, BufferSize+1)
	}
	if !bytes.Equal(req.Out[:len(resp)], resp) || req.Out[BufferSize] != byte(StatusOK) {
		t.Errorf("response %x, status %d", req.Out[:len(resp)], req.Out[BufferSize])
	}
	if i := bytes.IndexFunc(req.Out[len(resp):BufferSize], func(r rune) bool { return r != 0 }); i >= 0 {
		t.Errorf("byte %d behind the response is not zero", i)
	}
	got := slot.commands[0]
	if !bytes.Equal(got.Bytes, cmd) || got.Locality != 3 || got.Timeout != slowTimeout {
		t.Errorf("the slot got %+v", got)
	}
}

// Bad chains and bad commands, each with the answer that docs/virtio-vtpm.md,
// "Device operation", specifies. None of them may reach the slot.
func TestHandleRefuses(t *testing.T) {
	cmd := sized(0x17b, 12)
	shortSize, longSize := bytes.Clone(cmd), bytes.Clone(cmd)
	binary.BigEndian.PutUint32(shortSize[2:], 11)
	binary.BigEndian.PutUint32(longSize[2:], 1<<31)
	truncated := chain(sized(0x17b, BufferSize), BufferSize)
	truncated.InTotal = 1 << 20
	huge := chain(cmd, maxWritable+1)
	huge.OutTotal = 1 << 30

	tests := []struct {
		name    string
		framed  bool
		req     *virtqueue.Request
		written uint32
		rc      uint32 // 0: no response
		status  Status
	}{
		{name: "plain, no command", req: chain(nil, BufferSize), written: 10, rc: rcCommandSize},
		{name: "plain, command shorter than a header", req: chain(cmd[:9], BufferSize), written: 10, rc: rcCommandSize},
		{name: "plain, size field too small", req: chain(shortSize, BufferSize), written: 10, rc: rcCommandSize},
		{name: "plain, size field too large", req: chain(longSize, BufferSize), written: 10, rc: rcCommandSize},
		{name: "plain, command over the buffer size", req: chain(sized(0x17b, BufferSize+1), BufferSize), written: 10, rc: rcCommandSize},
		{name: "plain, command cut at the limit", req: truncated, written: 10, rc: rcCommandSize},
		{name: "plain, no response buffer", req: chain(cmd, 0)},
		{name: "plain, response buffer too small", req: chain(cmd, BufferSize-1)},
		{name: "plain, response buffer absurd", req: huge},
		{name: "framed, nothing readable", framed: true, req: chain(nil, BufferSize+1), written: BufferSize + 1, status: StatusBadInput},
		{name: "framed, locality only", framed: true, req: chain([]byte{0}, BufferSize+1), written: BufferSize + 1, rc: rcCommandSize},
		{name: "framed, locality 4", framed: true, req: chain(append([]byte{4}, cmd...), BufferSize+1), written: BufferSize + 1, rc: rcLocality},
		{name: "framed, response buffer too small", framed: true, req: chain(append([]byte{0}, cmd...), BufferSize), written: BufferSize, status: StatusBadInput},
		{name: "framed, room for a status only", framed: true, req: chain(append([]byte{0}, cmd...), 1), written: 1, status: StatusBadInput},
		{name: "framed, no room for a status", framed: true, req: chain(append([]byte{0}, cmd...), 0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			slot := &scriptSlot{}
			d := newTestDevice(t, slot, nil)
			var features uint64
			if tt.framed {
				features = 1 << FeatureFramed
			}
			if err := d.Start(0, features, 0); err != nil {
				t.Fatal(err)
			}
			n := d.Handle(tt.req)
			if n != tt.written {
				t.Fatalf("Handle = %d, want %d", n, tt.written)
			}
			if tt.rc != 0 {
				wantRC(t, tt.req.Out[:tpmHeaderBytes], tt.rc)
			}
			if tt.framed && n > 0 && tt.req.Out[n-1] != byte(tt.status) {
				t.Errorf("status = %d, want %d", tt.req.Out[n-1], tt.status)
			}
			if len(slot.commands) != 0 {
				t.Errorf("the slot executed %d commands, want 0", len(slot.commands))
			}
		})
	}
}

func TestHandleSlotFailures(t *testing.T) {
	tests := []struct {
		name   string
		answer func(coproc.Command, []byte) (int, error)
		rc     uint32
	}{
		{"failed", func(coproc.Command, []byte) (int, error) { return 0, coproc.ErrFailed }, rcFailure},
		{"timeout", func(coproc.Command, []byte) (int, error) { return 0, coproc.ErrTimeout }, rcCanceled},
		{"cancelled", func(coproc.Command, []byte) (int, error) { return 0, coproc.ErrCanceled }, rcCanceled},
		{"empty response", answerWith(nil), rcFailure},
		{"short response", answerWith(make([]byte, 9)), rcFailure},
		{"response with another size", answerWith(append(sized(0, 20), 0)), rcFailure},
		{"length beyond the buffer", func(coproc.Command, []byte) (int, error) { return 1 << 20, nil }, rcFailure},
		{"negative length", func(coproc.Command, []byte) (int, error) { return -1, nil }, rcFailure},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newTestDevice(t, &scriptSlot{answer: tt.answer}, nil)
			req := chain(sized(0x17b, 12), BufferSize)
			n := d.Handle(req)
			wantRC(t, req.Out[:n], tt.rc)
			if got := d.Stats().SlotErrors; got != 1 {
				t.Errorf("SlotErrors = %d, want 1", got)
			}
		})
	}
}

func TestHandleBeforePowerOn(t *testing.T) {
	d, err := NewDevice(Config{Slot: &scriptSlot{}, Policy: PolicyKeep})
	if err != nil {
		t.Fatal(err)
	}
	req := chain(sized(0x17b, 12), BufferSize)
	n := d.Handle(req)
	wantRC(t, req.Out[:n], rcFailure)
}

func TestConfigSpace(t *testing.T) {
	slot := &scriptSlot{}
	d := newTestDevice(t, slot, nil)
	space := make([]byte, 16)
	d.ReadConfig(space, 0)
	if want := []byte{0, 16, 2, 3, 0, 0, 0, 0}; !bytes.Equal(space[:8], want) {
		t.Errorf("config = %x, want %x", space[:8], want)
	}
	for _, off := range []uint32{3, 8, 1 << 31, 1<<32 - 1} {
		part := []byte{0xaa}
		d.ReadConfig(part, off)
		if want := byte(0xaa); off >= ConfigSize && part[0] != want {
			t.Errorf("ReadConfig at %d wrote %#x", off, part[0])
		}
	}
	writes := []struct {
		off    uint32
		src    []byte
		cancel bool
	}{
		{0, []byte{0xff, 0xff, 0xff, 0xff}, false},
		{0, []byte{0, 16, 2, 3, 0, 0, 0, 0}, false},
		{0, []byte{0, 16, 2, 3, 1, 0, 0, 0}, true},
		{4, []byte{0, 0, 0, 0x80}, true},
		{8, []byte{1}, false},
		{1<<32 - 1, []byte{1, 1, 1, 1, 1, 1}, false},
	}
	for _, w := range writes {
		slot.cancels = 0
		if err := d.WriteConfig(w.off, w.src); err != nil {
			t.Errorf("WriteConfig(%d, %x): %v", w.off, w.src, err)
		}
		if got := slot.cancels == 1; got != w.cancel {
			t.Errorf("WriteConfig(%d, %x) cancelled: %v, want %v", w.off, w.src, got, w.cancel)
		}
	}
}

func TestFeaturesFollowLayouts(t *testing.T) {
	for layouts, want := range map[Layout]uint64{LayoutBoth: 7, LayoutFramed: 7, LayoutPlain: 6, 0: 7} {
		d, err := NewDevice(Config{Slot: &scriptSlot{}, Policy: PolicyKeep, Layouts: layouts})
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Features(); got != want {
			t.Errorf("Features() with layouts %d = %#x, want %#x", layouts, got, want)
		}
	}
}

func TestNewDeviceRefusesBadConfig(t *testing.T) {
	slot, mon := &scriptSlot{}, &scriptMonitor{}
	for name, cfg := range map[string]Config{
		"no slot":             {Policy: PolicyKeep},
		"no policy":           {Slot: slot},
		"unknown policy":      {Slot: slot, Policy: "maybe"},
		"qmp without monitor": {Slot: slot, Policy: PolicyQMP},
		"keep with monitor":   {Slot: slot, Policy: PolicyKeep, Monitor: mon},
		"unknown layout":      {Slot: slot, Policy: PolicyKeep, Layouts: 8},
	} {
		if _, err := NewDevice(cfg); err == nil {
			t.Errorf("%s: NewDevice succeeded", name)
		}
	}
}

func TestSlowCommandsGetTime(t *testing.T) {
	if got := CommandTimeout(0x153); got != slowTimeout {
		t.Errorf("CommandTimeout(TPM2_Create) = %v, want %v", got, slowTimeout)
	}
	if got := CommandTimeout(0x182); got != defaultTimeout || got >= 120*time.Second {
		t.Errorf("CommandTimeout(TPM2_PCR_Extend) = %v, want %v, below the driver's 120 s", got, defaultTimeout)
	}
}

var errScript = errors.New("scripted failure")
