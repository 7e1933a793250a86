// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hang guards every wait.
const hang = 30 * time.Second

// fake is a device that keeps what it is told.
type fake struct {
	bar     [64]byte
	maps    []DMAMap
	mapFDs  int
	vectors [2*maxFDs + 1]*FD
	resets  int
}

func (d *fake) Region(index uint32) uint64 {
	if index == RegionBAR0 {
		return uint64(len(d.bar))
	}
	return 0
}
func (d *fake) Vectors() uint32 { return uint32(len(d.vectors)) }
func (d *fake) ReadRegion(_ uint32, off uint64, b []byte) error {
	copy(b, d.bar[off:])
	return nil
}
func (d *fake) WriteRegion(_ uint32, off uint64, b []byte) error {
	copy(d.bar[off:], b)
	return nil
}
func (d *fake) MapDMA(m DMAMap, fd *FD) error {
	if fd != nil {
		d.mapFDs++
	}
	fd.Close()
	if m.Address == 0xbad000 {
		return fmt.Errorf("overlap: %w", unix.EEXIST)
	}
	d.maps = append(d.maps, m)
	return nil
}
func (d *fake) UnmapDMA(uint64, uint64) error { return nil }
func (d *fake) SetVectors(start uint32, fds []*FD) {
	for i, f := range fds {
		d.vectors[int(start)+i].Close()
		d.vectors[int(start)+i] = f
	}
}
func (d *fake) Reset() { d.resets++ }

func socketPair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var c [2]*net.UnixConn
	for i, n := range p {
		f := os.NewFile(uintptr(n), "socket")
		fc, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		c[i] = fc.(*net.UnixConn)
		c[i].SetDeadline(time.Now().Add(hang))
		t.Cleanup(func() { fc.Close() })
	}
	return c[0], c[1]
}

// serve serves a fake on one end of a pair and gives the other end, and a
// function that waits for the end of the session.
func serve(t testing.TB) (*net.UnixConn, *fake, func() error) {
	t.Helper()
	ours, theirs := socketPair(t)
	d := &fake{}
	done := make(chan error, 1)
	go func() { done <- Serve(theirs, d) }()
	return ours, d, func() error {
		select {
		case err := <-done:
			t.Cleanup(func() { d.SetVectors(0, make([]*FD, len(d.vectors))) })
			return err
		case <-time.After(hang):
			t.Fatal("the session does not end")
			return nil
		}
	}
}

func eventFD(t testing.TB) int {
	t.Helper()
	n, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(n) })
	return n
}

// countFDs counts this process' descriptors.
func countFDs(t testing.TB) int {
	t.Helper()
	names, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestClientAndServer(t *testing.T) {
	sock, d, wait := serve(t)
	c, err := NewClient(sock, hang, nil)
	if err != nil {
		t.Fatalf("NewClient: %v", err)
	}
	if got, err := c.Info(); err != nil || got != (DeviceInfo{DeviceResets | DevicePCI, PCIRegions, PCIIRQs}) {
		t.Errorf("Info = %+v, %v", got, err)
	}
	if got, err := c.RegionInfo(RegionBAR0); err != nil || got.Size != 64 {
		t.Errorf("RegionInfo = %+v, %v", got, err)
	}
	if got, err := c.IRQInfo(IRQMSIX); err != nil || got != (IRQInfo{IRQEventFD, IRQMSIX, 2*maxFDs + 1}) {
		t.Errorf("IRQInfo = %+v, %v", got, err)
	}
	b := make([]byte, 4)
	if err := errors.Join(c.Write(RegionBAR0, 8, []byte{1, 2, 3, 4}), c.Post(RegionBAR0, 10, []byte{9}), c.Read(RegionBAR0, 8, b)); err != nil || !reflect.DeepEqual(b, []byte{1, 2, 9, 4}) {
		t.Errorf("Read = %x, %v", b, err)
	}
	event := eventFD(t)
	if err := c.SetVectors(slices.Repeat([]int{event}, len(d.vectors))); err != nil {
		t.Errorf("SetVectors: %v", err)
	}
	m := DMAMap{Flags: DMARead, Address: 0x1000, Size: 0x1000}
	if err := errors.Join(c.MapDMA(m, event), c.UnmapDMA(0x1000, 0x1000), c.Reset()); err != nil {
		t.Error(err)
	}
	m.Address = 0xbad000
	if err := c.MapDMA(m, event); !errors.Is(err, unix.EEXIST) {
		t.Errorf("MapDMA over another: %v, want EEXIST", err)
	}
	if err := c.Read(RegionBAR0, 62, b); !errors.Is(err, unix.EINVAL) {
		t.Errorf("Read over the end: %v, want EINVAL", err)
	}
	c.Close()
	if err := wait(); err != nil { // and the device is ours
		t.Errorf("Serve: %v", err)
	}
	if len(d.maps) != 1 || d.mapFDs != 2 || d.resets != 1 {
		t.Errorf("device has %+v, %d descriptors, %d resets", d.maps, d.mapFDs, d.resets)
	}
	d.vectors[1].Signal()
	var count [8]byte
	if _, err := unix.Read(event, count[:]); err != nil || order.Uint64(count[:]) != 1 {
		t.Errorf("event = %x, %v", count, err)
	}
	if c.Err() == nil {
		t.Error("Err after Close is nil")
	}
}

// exchange sends a raw message and reads the header of the answer.
func exchange(t *testing.T, c *conn, h header, body []byte, fds ...int) (header, error) {
	t.Helper()
	if err := c.send(h, body, nil, fds...); err != nil {
		return header{}, err
	}
	var m message
	err := c.receive(&m)
	m.closeFDs()
	return m.header, err
}

var helloBody = version{maxFDs: 1, maxTransfer: 4096}.append(nil)

// TestHostileClient: what is only wrong is answered with an error, and no
// descriptor stays behind.
func TestHostileClient(t *testing.T) {
	event := eventFD(t)
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	null := int(file.Fd())
	before := countFDs(t)
	sock, _, wait := serve(t)
	c := newConn(sock)
	if h, err := exchange(t, c, header{command: CmdVersion}, helloBody); err != nil || h.flags != flagReply {
		t.Fatalf("VERSION: %+v, %v", h, err)
	}
	set := func(s irqSet) []byte { return s.append(nil) }
	for _, tc := range []struct {
		name  string
		cmd   Command
		body  []byte
		fds   []int
		errno unix.Errno
	}{
		{"unknown command", 99, nil, []int{event}, unix.ENOTSUP},
		{"second VERSION", CmdVersion, helloBody, nil, unix.EINVAL},
		{"short map", CmdDMAMap, make([]byte, mapSize-1), []int{event}, unix.EINVAL},
		{"empty map", CmdDMAMap, DMAMap{}.append(nil), []int{event}, unix.EINVAL},
		{"map that wraps", CmdDMAMap, DMAMap{Address: 1 << 63, Size: 1<<63 + 1}.append(nil), []int{event}, unix.EINVAL},
		{"map with two descriptors", CmdDMAMap, DMAMap{Size: 1}.append(nil), []int{event, event}, unix.EINVAL},
		{"unmap of nothing", CmdDMAUnmap, DMAUnmap{}.append(nil), nil, unix.EINVAL},
		{"region 9", CmdGetRegionInfo, RegionInfo{Index: 9}.append(nil), nil, unix.EINVAL},
		{"interrupt 5", CmdGetIRQInfo, IRQInfo{Index: 5}.append(nil), nil, unix.EINVAL},
		{"read of 0", CmdRegionRead, access{}.append(nil), nil, unix.EINVAL},
		{"read of 4 GiB", CmdRegionRead, access{count: 1<<32 - 1}.append(nil), nil, unix.EINVAL},
		{"read that wraps", CmdRegionRead, access{offset: 1<<64 - 4, count: 8}.append(nil), nil, unix.EINVAL},
		{"read of region 77", CmdRegionRead, access{region: 77, count: 4}.append(nil), nil, unix.EINVAL},
		{"write with too little", CmdRegionWrite, append(access{count: 4}.append(nil), 1), nil, unix.EINVAL},
		{"write with descriptor", CmdRegionWrite, append(access{count: 1}.append(nil), 1), []int{event}, unix.EINVAL},
		{"interrupt of /dev/null", CmdSetIRQs, set(irqSet{0x24, IRQMSIX, 0, 1}), []int{null}, unix.EINVAL},
		{"vector after the last", CmdSetIRQs, set(irqSet{0x24, IRQMSIX, 2*maxFDs + 1, 1}), []int{event}, unix.ENOTSUP},
		{"fewer descriptors", CmdSetIRQs, set(irqSet{0x24, IRQMSIX, 0, 2}), []int{event}, unix.EINVAL},
		{"vectors that wrap", CmdSetIRQs, set(irqSet{0x24, IRQMSIX, 1, 1<<32 - 1}), nil, unix.EINVAL},
		{"two actions", CmdSetIRQs, set(irqSet{0x3c, IRQMSIX, 0, 1}), []int{event}, unix.EINVAL},
		{"INTx", CmdSetIRQs, set(irqSet{0x24, 0, 0, 1}), []int{event}, unix.ENOTSUP},
		{"disable INTx", CmdSetIRQs, set(irqSet{0x21, 0, 0, 0}), nil, 0},
		{"assign and take away", CmdSetIRQs, set(irqSet{0x24, IRQMSIX, 0, 2}), []int{event, event}, 0},
		{"disable MSI-X", CmdSetIRQs, set(irqSet{0x21, IRQMSIX, 0, 0}), nil, 0},
	} {
		h, err := exchange(t, c, header{id: 7, command: tc.cmd}, tc.body, tc.fds...)
		want := header{id: 7, command: tc.cmd, size: headerSize, flags: flagReply}
		if tc.errno != 0 {
			want.flags |= flagError
			want.errno = uint32(tc.errno)
		}
		if err != nil || h != want {
			t.Errorf("%s: reply %+v, %v, want %+v", tc.name, h, err, want)
		}
	}
	sock.Close()
	if err := wait(); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if n := countFDs(t); n != before {
		t.Errorf("%d descriptors are open, %d before", n, before)
	}
}

// TestBrokenFraming: what breaks the stream ends the session with an error.
func TestBrokenFraming(t *testing.T) {
	event := eventFD(t)
	for _, tc := range []struct {
		name    string
		message []byte
		fds     []int
	}{
		{"not VERSION first", header{command: CmdReset, size: headerSize}.append(nil), nil},
		{"version 1", append(header{command: CmdVersion, size: headerSize + 4}.append(nil), 1, 0, 0, 0), []int{event}},
		{"size below the header", header{command: CmdVersion, size: 15}.append(nil), []int{event}},
		{"size of 4 GiB", header{command: CmdVersion, size: 1<<32 - 1}.append(nil), []int{event}},
		{"a reply", header{command: CmdVersion, size: headerSize, flags: flagReply}.append(nil), nil},
		{"type 2", header{command: CmdVersion, size: headerSize, flags: 2}.append(nil), nil},
		{"17 descriptors", header{command: CmdVersion, size: headerSize}.append(nil), []int{event, event, event, event, event, event, event, event, event, event, event, event, event, event, event, event, event}},
		{"half a header", make([]byte, 8), []int{event}},
		{"half a body", header{command: CmdVersion, size: 99}.append(nil), []int{event}},
	} {
		before := countFDs(t)
		sock, _, wait := serve(t)
		if _, _, err := sock.WriteMsgUnix(tc.message, unix.UnixRights(tc.fds...), nil); err != nil {
			t.Fatal(err)
		}
		sock.CloseWrite()
		if err := wait(); !errors.Is(err, ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: Serve: %v, want ErrProtocol", tc.name, err)
		}
		sock.Close()
		if n := countFDs(t); n != before {
			t.Errorf("%s: %d descriptors are open, %d before", tc.name, n, before)
		}
	}
}
