// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/accesskey"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/internal/link"
	"hwvtpm/coproc/internal/slot"
)

// How often and how long one call goes on trying what may be well in a moment: a
// card takes seconds to give up a worker that hangs. A guest's command has the
// longer Config.Patience, which is several such calls.
const (
	retryEvery = 25 * time.Millisecond
	retryFor   = 5 * time.Second
)

// opener opens one slot, again and again.
type opener struct {
	card *Card
	name string

	known bool     // it was open before
	id    [16]byte // of the slot then
	epoch uint64   // of the daemon's store then, another for each daemon
}

// open opens the slot and greets the TPM in it.
func (o *opener) open(ctx context.Context) (slot.Worker, error) {
	var w *worker
	var epoch uint64
	err := o.card.dial(ctx, func(ctx context.Context, client *admin.Client) error {
		health, err := client.Health(ctx)
		if err != nil {
			return err
		}
		epoch = health.Epoch
		w, err = o.try(ctx, client)
		return err
	})
	if err != nil {
		return nil, err // not a nil *worker in an interface
	}
	o.known, o.id, o.epoch = true, w.id.SlotID, epoch
	return w, nil
}

// try opens the slot over one connection.
func (o *opener) try(ctx context.Context, client *admin.Client) (*worker, error) {
	ch, files, err := client.Open(ctx, o.name, o.prove)
	if err != nil {
		return nil, err
	}
	l, err := channel(files)
	if err != nil {
		return nil, err
	}
	w := &worker{Link: l}
	defer context.AfterFunc(ctx, l.Shutdown)()
	if w.id, err = slot.Greet(w, o.name, o.card.cfg.AdminTimeout); err != nil {
		w.Kill()
		return nil, ended(ctx, err)
	}
	if w.id.SlotID != ch.ID {
		w.Kill()
		return nil, fmt.Errorf("the channel leads to another slot: %w", coproc.ErrForeign)
	}
	return w, nil
}

// prove signs the challenge. A slot of the same name that is not the one that
// was open would be another TPM under the guest's feet.
func (o *opener) prove(ch abi.Challenge) (abi.Proof, error) {
	if o.known && ch.ID != o.id {
		return abi.Proof{}, fmt.Errorf("slot was replaced by another of the same name: %w", coproc.ErrForeign)
	}
	key, err := o.card.cfg.Key(o.name)
	if err != nil {
		return abi.Proof{}, fmt.Errorf("no access key: %w: %w", coproc.ErrDenied, err)
	}
	defer clear(key)
	return accesskey.Prove(key, ch), nil
}

// channel makes a link of the descriptors that came with an open slot. It takes
// them all.
func channel(files []*os.File) (*link.Link, error) {
	defer closeFiles(files)
	if len(files) != maxFiles {
		return nil, fmt.Errorf("%d descriptors came with the slot, not %d: %w", len(files), maxFiles, abi.ErrMalformed)
	}
	var fds [maxFiles]int
	for i, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			for _, fd := range fds[:i] {
				unix.Close(fd)
			}
			return nil, fmt.Errorf("slot channel: %w", err)
		}
		fds[i] = fd
	}
	return link.New(fds[0], fds[1])
}

// dial calls f with a client over a new connection, and again while the daemon
// is away or starting, or the slot still held by what ended just now.
func (c *Card) dial(ctx context.Context, f func(context.Context, *admin.Client) error) error {
	begin := time.Now()
	for tries := 1; ; tries++ {
		err := c.dialOnce(ctx, f)
		if err == nil || !passing(err) || time.Since(begin) > min(retryFor, c.cfg.Patience) {
			return err
		}
		if tries == 10 {
			c.cfg.Logger.Warn("waiting for the coprocessor", "cause", err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-c.ctx.Done():
			return coproc.ErrClosed
		case <-time.After(retryEvery):
		}
	}
}

func (c *Card) dialOnce(ctx context.Context, f func(context.Context, *admin.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.AdminTimeout)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	conn, err := Dial(ctx, c.cfg.Socket)
	if err != nil {
		return absent(err)
	}
	defer conn.Close()
	return f(ctx, admin.New(conn))
}

// errAway: the daemon is not there, or too busy to say so.
var errAway = errors.New("coprocessor is away")

// absent marks the errors of a connect that may come from a daemon that is being
// restarted: no socket yet, nobody listens, the queue of those who connect is
// full (EAGAIN).
func absent(err error) error {
	for _, e := range []error{unix.ENOENT, unix.ECONNREFUSED, unix.EAGAIN} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", errAway, err)
		}
	}
	return err
}

// passing tells whether another try may find it well: the daemon is away, it or
// the worker died in the middle, the slot is not let go of yet.
func passing(err error) bool {
	return slices.ContainsFunc([]error{errAway, unix.ECONNRESET, unix.EPIPE, io.EOF, coproc.ErrInUse},
		func(e error) bool { return errors.Is(err, e) })
}
