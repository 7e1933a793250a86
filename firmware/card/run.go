// SPDX-License-Identifier: Apache-2.0

package card

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/card/worker"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// job is what a worker is for: to serve a slot, to make a TPM, or to write
// certificates into one. The last two are certifiers.
type job interface {
	// check says whether a state that the worker has opened is current.
	check(l sealed.Label) error

	// save makes a state durable. See store.SaveState for the error.
	// older: its content is older than what it replaces, which takes an
	// administrator's permission.
	save(l sealed.Label, blob []byte, older bool) error

	// ended is called once, when the process is gone and the status page is
	// there still.
	ended(r *run)
}

// run is one worker from its setup to its end. Its goroutine, serve, is the only
// one that receives from it and saves for it.
type run struct {
	card    *Card
	job     job
	slot    sealed.SlotID
	epoch   uint64 // that the worker saves under
	newest  sealed.Label
	proc    *worker.Process
	mem     []byte
	page    *wire.Page
	started int64 // CLOCK_MONOTONIC, in ns
	readied bool
	ready   chan wire.Ready // has room for one
	breach  error           // why the card has ended it
	done    chan struct{}   // closed when it is over

	// Guarded by the slot's mu.
	over bool  // ended was called
	hung int64 // since when the client has hung up, CLOCK_MONOTONIC, in ns
	told int64 // when it was told to exit, the same
}

// exitGrace is how long a worker may take from closing its channel to its end.
const exitGrace = 2 * time.Second

// start gives a worker its setup, with a sealed state and descriptors of the slot,
// which stay the caller's. It waits for room, and clears the keys in setup.
func (c *Card) start(ctx context.Context, wait time.Duration, job job, setup *wire.Setup, blob []byte, fds ...int) (*run, error) {
	defer setup.Clear()
	if err := c.reserve(ctx, wait); err != nil {
		return nil, err
	}
	r, err := c.startReserved(job, setup, blob, fds)
	if err != nil {
		c.release()
	}
	return r, err
}

func (c *Card) startReserved(job job, setup *wire.Setup, blob []byte, fds []int) (*run, error) {
	fd, err := wire.CreateShared()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	mem, err := wire.MapShared(fd)
	if err != nil {
		return nil, err
	}
	setup.BlobLen = uint32(copy(mem[wire.BlobOffset:], blob))
	r := &run{
		card: c, job: job, slot: setup.Slot, epoch: setup.Epoch, started: monotonic(),
		mem: mem, page: wire.NewPage(mem),
		ready: make(chan wire.Ready, 1), done: make(chan struct{}),
	}
	if l, err := sealed.ParseLabel(blob); err == nil && l.Slot == setup.Slot { // else it makes its first
		r.newest = l
	}
	msg := wire.AppendSetup(nil, setup)
	defer clear(msg)
	r.proc, err = c.hire(msg, append([]int{fd}, fds...))
	if err == nil && !c.begin(r.serve) {
		r.proc.Kill()
		err = errClosed
	}
	if err != nil {
		unix.Munmap(mem)
		return nil, err
	}
	return r, nil
}

// hire gets a worker and tells it. A spare may have died unnoticed, so there is a
// second try.
func (c *Card) hire(msg []byte, fds []int) (*worker.Process, error) {
	for try := 0; ; try++ {
		p, err := c.pool.Get()
		if err != nil {
			return nil, err
		}
		if err = p.Send(msg, fds...); err == nil {
			return p, nil
		}
		p.Kill()
		if try > 0 {
			return nil, fmt.Errorf("set up a worker: %w", err)
		}
	}
}

// serve does what the worker asks for, until it ends.
func (r *run) serve() {
	b := make([]byte, wire.MaxMessage)
	var err error
	for err == nil {
		var n int
		if n, err = r.proc.Receive(b); err == nil {
			err = r.handle(b[:n])
		}
	}
	if !errors.Is(err, io.EOF) {
		r.breach = err
		r.proc.Kill()
	}
	select {
	case <-r.proc.Exited():
	case <-time.After(exitGrace):
		r.proc.Kill()
		<-r.proc.Exited()
	}
	r.proc.Close()
	r.card.fold(r.page)
	r.job.ended(r)
	unix.Munmap(r.mem)
	r.card.release()
	close(r.done)
}

// handle does one thing that the worker asks for. An error ends the worker.
func (r *run) handle(msg []byte) error {
	switch wire.MessageKind(msg) {
	case wire.KindReady:
		ready, err := wire.ParseReady(msg)
		if err != nil {
			return err
		}
		return r.isReady(ready)
	case wire.KindSave, wire.KindSaveOlder:
		save, err := wire.ParseSave(msg)
		if err != nil {
			return err
		}
		return r.save(save)
	case wire.KindCertify:
		ask, err := wire.ParseCertify(msg)
		if err != nil {
			return err
		}
		return r.certify(&ask)
	}
	return fmt.Errorf("message of kind %d: %w", wire.MessageKind(msg), wire.ErrMalformed)
}

func (r *run) isReady(ready wire.Ready) error {
	if r.readied {
		return fmt.Errorf("second ready: %w", wire.ErrMalformed)
	}
	r.readied = true
	if ready.Status == abi.StatusOK {
		if ready.Epoch != r.newest.Epoch || ready.Generation != r.newest.Generation {
			return fmt.Errorf("worker is ready at %d.%d, its state is %s: %w", ready.Epoch, ready.Generation, r.newest, wire.ErrMalformed)
		}
		if err := r.job.check(r.newest); err != nil {
			return err
		}
	}
	r.ready <- ready
	return nil
}

// save makes the state in the shared memory durable. The worker may be anybody's,
// so the state is copied before anything is looked at, and its label has to be
// what comes next.
func (r *run) save(save wire.Save) error {
	blob := make([]byte, save.Length)
	copy(blob, r.mem[wire.BlobOffset:])
	l, err := sealed.ParseLabel(blob)
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	after := r.newest.Epoch < l.Epoch || r.newest.Epoch == l.Epoch && r.newest.Generation < l.Generation
	if l.Slot != r.slot || l.Kind != sealed.KindPermanent || l.Epoch != r.epoch || !after {
		return fmt.Errorf("save of %s, in epoch %d and after %s: %w", l, r.epoch, r.newest, wire.ErrMalformed)
	}
	err = r.job.save(l, blob, save.Older)
	status := abi.StatusOK
	switch {
	case err == nil:
		r.newest = l
	case errors.Is(err, sealed.ErrUnsure):
		status = abi.StatusInternal
	default:
		status, err = abi.StatusStorage, nil // the worker goes on with the old one
	}
	return errors.Join(err, r.proc.Send(wire.AppendSaved(nil, wire.Saved{Status: status})))
}

// await waits for the worker to be ready. With an error it has ended, or is about
// to.
func (r *run) await(ctx context.Context, timeout time.Duration) (wire.Ready, error) {
	var err error
	select {
	case ready := <-r.ready:
		return ready, nil
	case <-r.done:
	case <-ctx.Done():
		err = ctx.Err()
	case <-r.card.ctx.Done():
		err = errClosed
	case <-time.After(timeout):
		err = refuse(abi.StatusInternal, "worker is not ready after %v", timeout)
	}
	if err != nil {
		r.proc.Kill()
		<-r.done
		return wire.Ready{}, err
	}
	select {
	case ready := <-r.ready: // and ended right after
		return ready, nil
	default:
	}
	return wire.Ready{}, r.ending()
}

// ending says why a worker that was not to end has ended.
//
// Preconditions: the process is gone.
func (r *run) ending() error {
	if r.breach != nil {
		return fmt.Errorf("worker was ended: %w", r.breach)
	}
	return fmt.Errorf("worker ended: %s", r.proc.Ending())
}

// tellToExit asks the worker to exit when it has answered what it has read.
func (r *run) tellToExit() error { return r.proc.Send(wire.AppendPark(nil)) }
