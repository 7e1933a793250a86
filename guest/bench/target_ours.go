// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"hwvtpm/coproc"
	"hwvtpm/coproc/sim"
	"hwvtpm/vhostuser/vhostusertest"
	"hwvtpm/vtpm"
)

// programs is where the programs under test are.
type programs struct {
	backend, engine, card string
	control, hostd        string
}

// startBackend starts vhost-user-vtpm on the TPM in dir/state. run names the
// run of the virtual machine: a new name is a power-on.
func (p programs) startBackend(dir, run string) (proc *process, socket string, err error) {
	socket = filepath.Join(dir, "vtpm.sock")
	if err := os.RemoveAll(socket); err != nil {
		return nil, "", fmt.Errorf("bench: %w", err)
	}
	proc, err = start(dir, p.backend, "--socket-path", socket, "--coproc", "sim:"+filepath.Join(dir, "state"),
		"--engine", p.engine, "--reset-policy", "keep", "--run-id", run)
	return proc, socket, err
}

// ringTarget is the whole of our side, as a virtual machine monitor that knows
// its guest's every move would see it: from the kick to the call.
type ringTarget struct {
	front *vhostusertest.Frontend
	proc  *process
	resp  [vtpm.BufferSize + 1]byte // one more: the status byte of a framed chain
}

// ringOptions are what QEMU's device and the guest driver negotiate.
func ringOptions(packed bool) vhostusertest.Options {
	return vhostusertest.Options{
		Packed: packed, EventIdx: true, Indirect: true,
		Features: 1<<vtpm.FeatureFramed | 1<<vtpm.FeatureBufferSize | 1<<vtpm.FeatureCancel,
		Timeout:  hang,
	}
}

func openRing(ctx context.Context, p programs, dir, run string, packed bool) (target, error) {
	proc, socket, err := p.startBackend(dir, run)
	if err != nil {
		return nil, err
	}
	return proc.open(ctx, socket, func(c *net.UnixConn) (target, error) { return newRing(proc, c, packed) })
}

// newRing does on an open connection what QEMU does up to a running queue.
func newRing(proc *process, conn *net.UnixConn, packed bool) (*ringTarget, error) {
	front, err := vhostusertest.Open(conn, ringOptions(packed))
	if err != nil {
		return nil, err
	}
	for _, step := range []func() error{front.Realize, front.Start} {
		if err := step(); err != nil {
			front.Close()
			return nil, err
		}
	}
	return &ringTarget{front: front, proc: proc}, nil
}

func (t *ringTarget) frame(command []byte) []byte { return slices.Concat([]byte{0}, command) } // locality 0

func (t *ringTarget) exchange(framed []byte) ([]byte, error) {
	n, err := t.front.ExchangeInto(framed, t.resp[:])
	if err != nil {
		return nil, err
	}
	return tpmResponse(t.resp[:max(n-1, 0)]), nil
}

func (t *ringTarget) Send(command []byte) ([]byte, error) { return t.exchange(t.frame(command)) }

func (t *ringTarget) pids() []int {
	pid := t.proc.cmd.Process.Pid
	return append([]int{pid}, children(pid)...)
}

func (t *ringTarget) close() {
	t.front.Close()
	t.proc.stop()
}

// slotTarget is the coprocessor without the ring: driver and engine process.
type slotTarget struct {
	ctx  context.Context
	card *sim.Card
	slot coproc.Slot
	resp [coproc.MaxTransfer]byte
}

func openSlot(ctx context.Context, p programs, dir string) (*slotTarget, error) {
	card, err := sim.Open(sim.Config{Dir: filepath.Join(dir, "state"), EnginePath: p.engine})
	if err != nil {
		return nil, err
	}
	t := &slotTarget{ctx: context.WithoutCancel(ctx), card: card}
	if t.slot, err = card.OpenSlot(ctx, sim.SlotName); err != nil {
		t.close()
		return nil, err
	}
	if _, err := t.slot.PowerOn(ctx, coproc.RunID{1}); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *slotTarget) frame(command []byte) []byte { return command }

func (t *slotTarget) exchange(command []byte) ([]byte, error) {
	// A background context, as the device gives it: no cancellation to set up.
	n, err := t.slot.Execute(context.Background(), coproc.Command{Bytes: command}, t.resp[:])
	return t.resp[:n], err
}

func (t *slotTarget) Send(command []byte) ([]byte, error) { return t.exchange(command) }

func (t *slotTarget) pids() []int {
	h, err := t.slot.Health(t.ctx)
	if err != nil {
		return nil
	}
	return []int{h.WorkerPID}
}

func (t *slotTarget) close() {
	if t.slot != nil {
		_ = t.slot.Close()
	}
	_ = t.card.Close()
}
