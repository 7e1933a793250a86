// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"

	"hwvtpm/guest/workload"
	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
	"hwvtpm/vtpm"
)

// AllocRow says how many heap allocations one request costs.
type AllocRow struct {
	What       string  `json:"what"`
	Requests   int     `json:"requests"`
	PerRequest float64 `json:"per_request"`
}

// allocations counts those of the whole program, its other goroutines
// included, while f runs n times.
func allocations(what string, n int, f func() error) (AllocRow, error) {
	for range n/10 + 1 { // buffers grow to their size
		if err := f(); err != nil {
			return AllocRow{}, err
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		if err := f(); err != nil {
			return AllocRow{}, err
		}
	}
	runtime.ReadMemStats(&after)
	return AllocRow{what, n, float64(after.Mallocs-before.Mallocs) / float64(n)}, nil
}

// measureAllocations runs the packages of the request path inside this
// program, where the runtime counts.
func measureAllocations(ctx context.Context, p programs, dir string, plan Plan) ([]AllocRow, error) {
	n := plan.Requests
	var rows []AllocRow
	for _, packed := range []bool{false, true} {
		kind := map[bool]string{false: "split", true: "packed"}[packed]
		row, err := allocations("virtqueue, "+kind, n, queueRequest(packed))
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
		row, err = servedAllocations("vhostuser with virtqueue, "+kind, filepath.Join(dir, kind+".sock"), echo{}, packed, n)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	row, err := deviceAllocations(ctx, p, dir, n)
	return append(rows, row), err
}

// queueRequest returns a function that takes one chain through a queue.
func queueRequest(packed bool) func() error {
	d := queuetest.NewDriver(queuetest.Options{Packed: packed, EventIdx: true, Indirect: true})
	in, out, table := d.Alloc(64), d.Alloc(4096), d.Alloc(32)
	link := uint16(queuetest.FlagNext)
	if packed {
		link = 0 // a packed table is in order, without links (VIRTIO 1.3 2.8.7)
	}
	d.PutDesc(table, queuetest.Desc{Addr: d.GPA(in), Len: 64, Flags: link, Link: 1})
	d.PutDesc(table+16, queuetest.Desc{Addr: d.GPA(out), Len: 4096, Flags: queuetest.FlagWrite})
	offer := []queuetest.Desc{{Addr: d.GPA(table), Len: 32, Flags: queuetest.FlagIndirect}}
	q, err := virtqueue.New(d.Memory(), d.Config())
	if err != nil {
		return func() error { return err }
	}
	var chain virtqueue.Chain
	var req, resp [64]byte
	return func() error {
		d.Offer(offer...)
		ok, err := q.Pop(&chain)
		if err != nil || !ok {
			return fmt.Errorf("bench: pop: %v, %w", ok, err)
		}
		if _, err := chain.ReadAt(d.Memory(), req[:], 0); err != nil {
			return err
		}
		if _, err := chain.WriteAt(q, resp[:], 0); err != nil {
			return err
		}
		if err := q.Push(&chain, uint32(len(resp))); err != nil {
			return err
		}
		q.NeedCall()
		_, err = q.EnableKick()
		return err
	}
}

// deviceAllocations has the whole of vhost-user-vtpm in this program.
func deviceAllocations(ctx context.Context, p programs, dir string, n int) (AllocRow, error) {
	slot, err := openSlot(ctx, p, dir)
	if err != nil {
		return AllocRow{}, err
	}
	defer slot.close()
	if err := startup(slot); err != nil {
		return AllocRow{}, err
	}
	s, err := workload.New(slot, workload.PCRExtend)
	if err != nil {
		return AllocRow{}, err
	}
	device, err := vtpm.NewDevice(vtpm.Config{Slot: slot.slot, Policy: vtpm.PolicyKeep})
	if err != nil {
		return AllocRow{}, err
	}
	if err := device.PowerOn(ctx, [32]byte{1}); err != nil {
		return AllocRow{}, err
	}
	return servedRequests("all of vhost-user-vtpm, PCR_Extend", filepath.Join(dir, "device.sock"), device,
		ringOptions(false), append([]byte{0}, s.Command...), vtpm.BufferSize+1, n)
}

func servedAllocations(what, socket string, device vhostuser.Device, packed bool, n int) (AllocRow, error) {
	o := vhostusertest.Options{Packed: packed, EventIdx: true, Indirect: true, Timeout: hang}
	return servedRequests(what, socket, device, o, make([]byte, 64), 4096, n)
}

// servedRequests serves device on a socket and sends it requests.
func servedRequests(what, socket string, device vhostuser.Device, o vhostusertest.Options, req []byte, room, n int) (AllocRow, error) {
	server, err := vhostuser.NewServer(vhostuser.Config{Device: device})
	if err != nil {
		return AllocRow{}, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return AllocRow{}, fmt.Errorf("bench: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()
	defer func() { cancel(); <-served }()
	front, err := vhostusertest.Dial(socket, o)
	if err != nil {
		return AllocRow{}, err
	}
	defer front.Close()
	resp := make([]byte, room)
	return allocations(what, n, func() error {
		_, err := front.ExchangeInto(req, resp)
		return err
	})
}

// echo is the least device.
type echo struct{}

func (echo) Features() uint64                   { return 0 }
func (echo) QueueCount() int                    { return 1 }
func (echo) Limits() (in, out int)              { return 4096, 4096 }
func (echo) ReadConfig([]byte, uint32)          {}
func (echo) WriteConfig(uint32, []byte) error   { return nil }
func (echo) Start(int, uint64, uint32) error    { return nil }
func (echo) Handle(r *virtqueue.Request) uint32 { return uint32(copy(r.Out, r.In)) }
func (echo) Interrupt(int)                      {}
func (echo) Stop(int)                           {}
func (echo) Reset() error                       { return nil }
func (echo) SaveState(io.Writer) error          { return nil }
func (echo) LoadState(io.Reader) error          { return nil }
