// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"hwvtpm/vhostuser"
	"hwvtpm/vhostuser/vhostusertest"
	"hwvtpm/virtqueue/queuetest"
)

// secondQueue sets up queue 1 in memory that the first queue's driver spares.
func secondQueue(t *testing.T, f *vhostusertest.Frontend) (d *queuetest.Driver, kick int) {
	t.Helper()
	const room = 64 << 10
	off := f.Driver().Alloc(room)
	d = queuetest.NewDriver(queuetest.Options{
		Size: 8, Mem: f.Mem.Bytes[off : off+room], GPA: f.Driver().GPA(off), UserAddr: f.Driver().User(off),
	})
	kick, err := vhostusertest.Eventfd()
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(kick) })
	cfg := d.Config()
	must(t, f.SetVringNum(1, uint32(cfg.Size)))
	must(t, f.SetVringBase(1, 0))
	must(t, f.SetVringAddr(1, 0, cfg.Desc, cfg.Device, cfg.Driver, 0))
	must(t, f.SetVringKick(1, kick))
	must(t, f.Ack(vhostuser.SetVringCall, vhostusertest.U64(1|vhostusertest.NoFD))) // the driver polls
	must(t, f.SetVringEnable(1, true))
	return d, kick
}

// TestQueuesAreIndependent: one queue stops and breaks without the other.
func TestQueuesAreIndependent(t *testing.T) {
	dev := &echo{queues: 2}
	path, _ := serve(t, vhostuser.Config{Device: dev})
	f := dial(t, path, vhostusertest.Options{})
	if n, err := f.GetQueueNum(); err != nil || n != 2 {
		t.Fatalf("GetQueueNum() = %d, %v, want 2", n, err)
	}
	d, kick := secondQueue(t, f)
	ask := func() {
		t.Helper()
		_, err := d.Add([][]byte{[]byte("second")}, []int{16}, false)
		must(t, err)
		vhostusertest.Signal(kick)
		eventually(t, "queue 1 answers", func() bool { _, _, in, ok := d.Poll(); return ok && string(in) == "second" })
	}
	ask()
	exchange(t, f, []byte("first"))
	must(t, f.Stop())
	ask()
	must(t, f.Continue())
	d.SetAvailIdx(1000) // breaks queue 1
	vhostusertest.Signal(kick)
	exchange(t, f, []byte("first again"))
	if base, err := f.GetVringBase(1); err != nil || base != 2 {
		t.Errorf("GetVringBase(1) = %d, %v, want 2", base, err)
	}
	exchange(t, f, []byte("and again"))
}
