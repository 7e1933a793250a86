// SPDX-License-Identifier: Apache-2.0

package vtpm

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/virtqueue"
)

// errNotPowered is the reason for failure answers before the first PowerOn.
var errNotPowered = errors.New("vtpm: no virtual machine has connected yet")

// Device is the virtio vTPM of one virtual machine. It implements the device
// interface of package vhostuser.
type Device struct {
	slot     coproc.Slot
	policy   ResetPolicy
	monitor  Monitor
	layouts  Layout
	log      hclog.Logger
	counters counters
	observer observer

	// powered and resetPending are written with mu held and read without:
	// while the first is false or the second is true, no command reaches
	// the TPM.
	powered      atomic.Bool
	resetPending atomic.Bool

	framed atomic.Bool // layout that the driver negotiated
	quiet  atomic.Bool // a slot failure has been logged already

	mu      sync.Mutex // serializes what changes the slot's power state
	running bool       // the queue runs
	blind   bool       // its last start was without the monitor's word
	run     coproc.RunID
}

// NewDevice makes a device that serves cfg.Slot. The slot is not touched
// before PowerOn.
func NewDevice(cfg Config) (*Device, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Layouts == 0 {
		cfg.Layouts = LayoutBoth
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	return &Device{
		slot:    cfg.Slot,
		policy:  cfg.Policy,
		monitor: cfg.Monitor,
		layouts: cfg.Layouts,
		log:     cfg.Logger,
	}, nil
}

// Features returns the device-type feature bits that are offered.
func (d *Device) Features() uint64 {
	f := uint64(1<<FeatureBufferSize | 1<<FeatureCancel)
	if d.layouts&LayoutFramed != 0 {
		f |= 1 << FeatureFramed
	}
	return f
}

// QueueCount returns 1: the command queue.
func (d *Device) QueueCount() int { return 1 }

// Limits returns how much of a chain's readable and writable part Handle
// looks at. One byte more than is allowed is enough to see that it is too much.
func (d *Device) Limits() (in, out int) { return BufferSize + 2, maxWritable + 1 }

// ReadConfig copies the config space from off on to dst; bytes behind
// ConfigSize are left alone.
func (d *Device) ReadConfig(dst []byte, off uint32) {
	space := [ConfigSize]byte{BufferSize & 0xff, BufferSize >> 8, 2, MaxLocality}
	if off < ConfigSize {
		copy(dst, space[off:])
	}
}

// WriteConfig takes a driver's write: a nonzero cancel field ends the running
// command early, anything else is ignored, as for read-only fields (VIRTIO
// 1.3, 2.5.1).
func (d *Device) WriteConfig(off uint32, src []byte) error {
	for i, b := range src {
		if at := uint64(off) + uint64(i); b != 0 && at >= configCancel && at < ConfigSize {
			d.counters.cancels.Add(1)
			return d.slot.Cancel()
		}
	}
	return nil
}

// Handle serves one chain and returns how many bytes of req.Out go back to the
// guest. It never fails: a bad request gets the answer that docs/virtio-vtpm.md
// specifies, and a failed slot answers TPM_RC_FAILURE.
func (d *Device) Handle(req *virtqueue.Request) uint32 {
	r, ok := parseRequest(req, d.framed.Load())
	if !ok {
		d.counters.badChains.Add(1)
		if len(r.status) == 0 {
			return 0
		}
		r.status[0] = byte(StatusBadInput)
		return uint32(len(req.Out))
	}
	n := d.observed(&r, int64(req.InTotal) > int64(len(req.In)))
	if len(r.status) == 0 {
		return uint32(n)
	}
	clear(r.response[n:])
	r.status[0] = byte(StatusOK)
	return uint32(len(req.Out))
}

// execute answers r.command in r.response and returns the answer's length.
func (d *Device) execute(r *request, truncated bool) int {
	d.counters.commands.Add(1)
	h, ok := validCommand(r.command, truncated)
	switch {
	case !ok:
		return d.refuse(r, rcCommandSize)
	case r.locality > MaxLocality:
		return d.refuse(r, rcLocality)
	}
	if err := d.ready(); err != nil {
		d.slotFailed(err)
		return d.refuse(r, rcFailure)
	}
	n, err := d.slot.Execute(context.Background(), coproc.Command{
		Locality: r.locality,
		Timeout:  CommandTimeout(h.code),
		Bytes:    r.command,
	}, r.response)
	switch {
	case errors.Is(err, coproc.ErrTimeout), errors.Is(err, coproc.ErrCanceled):
		d.slotFailed(err)
		return d.refuse(r, rcCanceled)
	case err != nil:
		d.slotFailed(err)
		return d.refuse(r, rcFailure)
	}
	rh, ok := parseHeader(r.response[:min(max(n, 0), len(r.response))])
	if !ok || int64(rh.size) != int64(n) {
		d.slotFailed(errors.New("vtpm: the slot's response is not a TPM response"))
		return d.refuse(r, rcFailure)
	}
	d.quiet.Store(false)
	d.counters.response(rh.code)
	return n
}

func (d *Device) refuse(r *request, rc uint32) int {
	d.counters.response(rc)
	return putError(r.response, rc)
}

// slotFailed logs the first failure of a row of failures.
func (d *Device) slotFailed(err error) {
	d.counters.slotErrors.Add(1)
	if d.quiet.CompareAndSwap(false, true) {
		d.log.Error("the TPM did not serve a command", "error", err)
	}
}

// Interrupt makes a running Handle return soon, by cancelling its command.
func (d *Device) Interrupt(int) {
	d.counters.cancels.Add(1)
	if err := d.slot.Cancel(); err != nil {
		d.log.Warn("cancelling the running command failed", "error", err)
	}
}
