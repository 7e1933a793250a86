// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/engine"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// WorkerConfig is what a worker of a card is started with. All else comes over
// the supervisor channel.
type WorkerConfig struct {
	// SupervisorFD is the worker's end of the channel: see package wire.
	SupervisorFD int

	// Log takes the log, one line a record: level, message, key=value.
	Log io.Writer
}

// RunWorker is the life of a card's worker. It starts what takes time, waits to
// be told its slot, and serves that until the card or the client has enough. It
// opens no file and no socket, so that it can run where neither can be opened.
// The process is not good for anything else afterwards.
func RunWorker(cfg WorkerConfig) error {
	if err := harden(); err != nil {
		return err
	}
	tune()
	eng, err := engine.New()
	if err != nil {
		return err
	}
	// libtpms gets one thread for its life: see Run.
	runtime.LockOSThread()
	if err := warm(eng); err != nil {
		return err
	}
	w := &worker{
		fd: cfg.SupervisorFD, tpm: eng, log: logger{w: cfg.Log},
		cancel: eng.Cancel, curves: eng.FastCurves,
		gone: func() { os.Exit(0) }, // whatever the TPM is doing: nobody wants it
	}
	return w.run()
}

// warm makes a TPM and throws it away, before anybody waits: libtpms and OpenSSL
// have then done what they do once in a process, and their code is in memory.
// That is most of what a slot would wait for when it comes back.
func warm(t tpm) error {
	defer t.Stop()
	if err := t.Manufacture(); err != nil {
		return fmt.Errorf("try the engine: %w", err)
	}
	resp := make([]byte, abi.MaxPayload)
	for _, cmd := range [][]byte{
		{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0},  // TPM2_Startup(CLEAR)
		{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 32}, // TPM2_GetRandom
	} {
		n, _, err := t.Process(0, cmd, resp)
		if err == nil && responseCode(resp[:n]) != rcSuccess {
			err = fmt.Errorf("response code %#x", responseCode(resp[:n]))
		}
		if err != nil {
			return fmt.Errorf("try the engine: %w", err)
		}
	}
	vol := make([]byte, slotSize)
	n, err := t.Volatile(vol)
	if err != nil {
		return fmt.Errorf("try the engine: %w", err)
	}
	perm := t.Stored(nil)
	defer clear(perm)
	if err := t.Load(perm, vol[:n]); err != nil {
		return fmt.Errorf("try the engine: %w", err)
	}
	return nil
}

// worker is the worker of a card. Its parts are the engine's, and are others in
// tests.
type worker struct {
	fd     int
	tpm    tpm
	log    logger
	cancel func()
	curves func(fast bool)
	gone   func() // the card is gone; called on a goroutine of its own
}

// run is the worker's life.
func (w *worker) run() error {
	setup, fds, err := w.receiveSetup()
	if ended(err) {
		return nil // a spare that was not needed
	}
	if err != nil {
		return err
	}
	defer setup.Clear()
	defer wire.CloseAll(fds)
	w.curves(setup.Flags&wire.GenericCurves == 0)
	u := &supervised{fd: w.fd, vol: -1, boot: setup.Boot, mayRestore: setup.Flags&wire.MayRestore != 0}
	if u.shared, err = wire.MapShared(fds[0]); err != nil {
		return w.refuse(err)
	}
	defer unix.Munmap(u.shared)
	if len(fds) > 1 {
		u.vol = fds[1]
	}
	switch {
	case setup.Flags&wire.Recertify != 0:
		err = w.recertify(&setup, u)
	case setup.Task():
		err = w.make(&setup, u)
	default:
		err = w.serve(&setup, u, fds[2], fds[3])
	}
	if ended(err) {
		return nil
	}
	return err
}

// receiveSetup waits for the message that makes the process a slot's worker.
func (w *worker) receiveSetup() (wire.Setup, []int, error) {
	var b [wire.MaxMessage]byte
	defer clear(b[:])
	n, fds, err := wire.Receive(w.fd, b[:])
	if err != nil {
		return wire.Setup{}, nil, err
	}
	setup, err := wire.ParseSetup(b[:n])
	if err == nil && len(fds) != setup.Descriptors() {
		err = fmt.Errorf("setup with %d descriptors, want %d: %w", len(fds), setup.Descriptors(), wire.ErrMalformed)
	}
	if err != nil {
		setup.Clear()
		wire.CloseAll(fds)
		return wire.Setup{}, nil, w.refuse(err)
	}
	return setup, fds, nil
}

// refuse tells the card why the worker cannot go on.
func (w *worker) refuse(err error) error {
	w.ready(&wire.Ready{Status: statusOf(err), Text: err.Error()})
	return err
}

func (w *worker) ready(r *wire.Ready) error { return wire.Send(w.fd, wire.AppendReady(nil, r)) }

// serve opens the slot and serves it.
func (w *worker) serve(setup *wire.Setup, u *supervised, data, control int) error {
	s, err := w.open(setup, u)
	if err != nil {
		return w.refuse(err)
	}
	defer s.close()
	m, err := newMeter(wire.NewPage(u.shared))
	if err != nil {
		return w.refuse(err)
	}
	m.publish(s)
	if err := limitReads(data); err != nil {
		return w.refuse(err)
	}
	if err := w.ready(&wire.Ready{Generation: s.bound.generation, Epoch: s.bound.epoch}); err != nil {
		return err
	}
	run := &running{cancelTPM: w.cancel}
	watch, err := watchControl(control, w.fd, run, w.gone)
	if err != nil {
		return err
	}
	defer watch.stop()
	s.goOn(setup.Flags)
	m.publish(s)
	if u.broken != nil {
		return u.broken
	}
	srv := &server{slot: s, running: run, above: u, meter: m, hello: setup.Flags&wire.Greeted != 0}
	return srv.serve(data)
}

// goOn goes on where the slot's last worker was parked.
func (s *slot) goOn(flags wire.SetupFlags) {
	switch {
	case flags&wire.Powered != 0:
		if err := s.resume(); err != nil {
			s.fail("state of this run cannot be restored", err)
		}
	case flags&wire.Failed != 0:
		s.phase = abi.SlotFailed
	}
}

// open opens the slot from the state in the shared memory.
func (w *worker) open(setup *wire.Setup, u *supervised) (*slot, error) {
	seals, err := sealsOf(setup.Slot, &setup.Key)
	if err != nil {
		return nil, err
	}
	s := newSlot(u, seals, w.tpm, w.log)
	s.epoch, s.used, s.minSeq = setup.Epoch, setup.UsedGeneration, setup.MinSeq
	if err := s.adoptBlob(u.blob(setup)); err != nil {
		return nil, err
	}
	if err := checkPosition(setup, &s.bound); err != nil {
		return nil, err
	}
	if setup.Flags&wire.Powered != 0 {
		s.seq = s.minSeq // the resume, which comes at once, looks itself
		return s, nil
	}
	return s, s.look()
}

// blob gives a copy of the sealed state in the shared memory.
func (u *supervised) blob(setup *wire.Setup) []byte {
	return append([]byte(nil), u.shared[wire.BlobOffset:][:setup.BlobLen]...)
}

// sealsOf makes the seals of a slot and clears the key.
func sealsOf(id sealed.SlotID, key *[sealed.KeySize]byte) (*sealed.Slot, error) {
	k, err := sealed.KeyFrom(key[:])
	if err != nil {
		return nil, err
	}
	defer k.Clear()
	return sealed.NewSlot(id, k)
}

// checkPosition refuses a state that is older than what the card knows.
func checkPosition(setup *wire.Setup, b *binding) error {
	if b.epoch > setup.MinEpoch || b.epoch == setup.MinEpoch && b.generation >= setup.MinGeneration {
		return nil
	}
	return fmt.Errorf("state %d.%d is older than %d.%d, the newest that the card knows of: it was set back: restore the newest one, or adopt this one: %w",
		b.epoch, b.generation, setup.MinEpoch, setup.MinGeneration, sealed.ErrRollback)
}
