// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/provision"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// fake is a worker without a TPM: its permanent state is a number and its owner's
// name, and its commands are words. A few of them make it hostile.
type fake struct {
	setup         wire.Setup
	mem           []byte
	page          *wire.Page
	data, control int
	slot          *sealed.Slot
	generation    uint64
	state         []byte // number (8), then the slot's id at creation
	seq           uint64
}

// It exits by the system call: the race detector makes os.Exit take a second.
func fakeWorker() {
	b := make([]byte, wire.MaxMessage)
	n, fds, err := wire.Receive(wire.SupervisorFD, b)
	if err != nil {
		unix.Exit(0)
	}
	f := &fake{data: -1, control: -1}
	f.setup, err = wire.ParseSetup(b[:n])
	fakeMust(err)
	f.mem, err = wire.MapShared(fds[0])
	fakeMust(err)
	f.page = wire.NewPage(f.mem)
	if len(fds) == wire.MaxDescriptors {
		f.data, f.control = fds[2], fds[3]
	}
	f.slot = fakeSlot(f.setup.Slot, f.setup.Key)
	switch {
	case f.setup.Flags&wire.Recertify != 0:
		f.recertify()
		unix.Exit(0)
	case f.setup.Task():
		f.make()
		unix.Exit(0)
	}
	f.begin()
	f.serve()
}

func fakeMust(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error fake worker:", err)
		unix.Exit(3)
	}
}

func fakeSlot(id sealed.SlotID, key [32]byte) *sealed.Slot {
	k, err := sealed.KeyFrom(key[:])
	fakeMust(err)
	s, err := sealed.NewSlot(id, k)
	fakeMust(err)
	return s
}

// make makes a "TPM": the number is 0, or the source's.
func (f *fake) make() {
	f.state = append(make([]byte, 8), f.setup.Slot[:]...)
	if f.setup.Flags&wire.Clone != 0 {
		source := fakeSlot(f.setup.Source, f.setup.SourceKey)
		old, _, err := source.Open(nil, sealed.KindPermanent, f.mem[wire.BlobOffset:][:f.setup.BlobLen])
		fakeMust(err)
		copy(f.state, old[:8])
	}
	public, name := fakeEK(f.setup.Slot)
	f.ask(abi.EKCertificate{Handle: 0x81010001, Public: public})
	if status := f.save(); status != abi.StatusOK {
		unix.Exit(4)
	}
	eks := []abi.EK{{Handle: 0x81010001, Name: name}}
	f.send(wire.AppendReady(nil, &wire.Ready{Generation: f.generation, Epoch: f.setup.Epoch, EKs: eks}))
}

// recertify saves the same state anew, once the card has certified its key.
func (f *fake) recertify() {
	state, l, err := f.slot.Open(nil, sealed.KindPermanent, f.mem[wire.BlobOffset:][:f.setup.BlobLen])
	fakeMust(err)
	f.state, f.generation = state, l.Generation
	public, _ := fakeEK(sealed.SlotID(state[8:]))
	f.ask(abi.EKCertificate{Handle: 0x81010001, Public: public})
	if status := f.save(); status != abi.StatusOK {
		f.send(wire.AppendReady(nil, &wire.Ready{Status: status, Text: "not saved"}))
		unix.Exit(0)
	}
	f.send(wire.AppendReady(nil, &wire.Ready{Generation: f.generation, Epoch: f.setup.Epoch}))
}

// ask has the card certify an endorsement key.
func (f *fake) ask(has ...abi.EKCertificate) []abi.EKCertificate {
	list := abi.AppendEKCertificates(nil, has)
	copy(f.mem[wire.BlobOffset:], list)
	f.send(wire.AppendCertify(nil, &wire.Certify{ListLen: uint32(len(list)), Maker: 0x46414b45, Revision: 164}))
	b := make([]byte, wire.MaxMessage)
	n, _, err := wire.Receive(wire.SupervisorFD, b)
	if err != nil {
		unix.Exit(0)
	}
	c, err := wire.ParseCertified(b[:n])
	fakeMust(err)
	if c.Status != abi.StatusOK {
		unix.Exit(0)
	}
	got, err := abi.ParseEKCertificates(bytes.Clone(f.mem[wire.BlobOffset:][:c.ListLen]))
	fakeMust(err)
	return got
}

// fakeEK is the endorsement key of a fake TPM: its public area and TPM Name.
func fakeEK(id sealed.SlotID) (public, name []byte) {
	seed := sha256.Sum256(id[:])
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	fakeMust(err)
	point, err := key.PublicKey.Bytes()
	fakeMust(err)
	public = []byte{0, 0x23, 0, 0x0b, 0, 0x03, 0, 0xb2, 0, 0, 0, 6, 0, 128, 0, 0x43, 0, 0x10, 0, 3, 0, 0x10, 0, 32}
	public = append(public, point[1:33]...)
	public = append(append(public, 0, 32), point[33:]...)
	_, name, err = provision.ParseEK(public)
	fakeMust(err)
	return public, name
}

// begin opens the state and says so.
func (f *fake) begin() {
	state, l, err := f.slot.Open(nil, sealed.KindPermanent, f.mem[wire.BlobOffset:][:f.setup.BlobLen])
	if err != nil {
		f.send(wire.AppendReady(nil, &wire.Ready{Status: abi.StatusCorrupt, Text: err.Error()}))
		unix.Exit(0)
	}
	f.state, f.generation = state, l.Generation
	f.seq = f.setup.MinSeq
	if f.setup.Flags&wire.Powered != 0 {
		f.page.SetState(abi.SlotRunning)
		f.page.SetSeq(f.seq)
	}
	if f.setup.Flags&wire.Failed != 0 {
		f.page.SetState(abi.SlotFailed)
	}
	f.send(wire.AppendReady(nil, &wire.Ready{Generation: l.Generation, Epoch: l.Epoch}))
}

func (f *fake) send(msg []byte) { fakeMust(wire.Send(wire.SupervisorFD, msg)) }

// save saves the state as the next generation.
func (f *fake) save() abi.Status {
	f.generation = max(f.generation, f.setup.UsedGeneration) + 1
	return f.saveAs(f.slot, f.generation, f.setup.Epoch)
}

func (f *fake) saveAs(slot *sealed.Slot, generation, epoch uint64) abi.Status {
	blob, err := slot.Seal(nil, sealed.KindPermanent, generation, epoch, f.state)
	fakeMust(err)
	copy(f.mem[wire.BlobOffset:], blob)
	f.send(wire.AppendSave(nil, wire.Save{Length: uint32(len(blob))}))
	b := make([]byte, wire.MaxMessage)
	for {
		n, _, err := wire.Receive(wire.SupervisorFD, b)
		if err != nil {
			unix.Exit(0)
		}
		if wire.MessageKind(b[:n]) == wire.KindSaved {
			saved, err := wire.ParseSaved(b[:n])
			fakeMust(err)
			return saved.Status
		}
		parkLater = true
	}
}

// parkLater: the order to exit came while a save was waited for.
var parkLater bool

func (f *fake) serve() {
	b := make([]byte, abi.MaxMessage+1)
	for !parkLater {
		fds := []unix.PollFd{{Fd: int32(f.data), Events: unix.POLLIN}, {Fd: wire.SupervisorFD, Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil {
			continue
		}
		if fds[1].Revents != 0 {
			unix.Exit(0) // park, or the card is gone
		}
		n, err := unix.Read(f.data, b)
		if err != nil || n == 0 {
			unix.Exit(0)
		}
		f.answer(b[:n])
	}
	unix.Exit(0)
}

func (f *fake) answer(msg []byte) {
	sub, err := abi.ParseSubmission(msg)
	fakeMust(err)
	f.page.SetBusy(true)
	f.page.Touch(monotonic())
	c := abi.Completion{Op: sub.Op, Seq: sub.Seq, Slot: sub.Slot}
	switch sub.Op {
	case abi.OpPowerOn:
		f.page.SetState(abi.SlotRunning)
	case abi.OpExecute:
		c.Payload = f.execute(sub.Payload)
		f.seq = max(f.seq, sub.Seq)
		f.page.SetSeq(f.seq)
		f.page.SetCounters(wire.Counters{Commands: f.page.Commands() + 1})
	}
	f.page.SetBusy(false)
	unix.Write(f.data, abi.AppendCompletion(nil, &c))
	if sub.Op == abi.OpClose {
		unix.Exit(0)
	}
}

// execute runs a command. What it answers begins with "ok" if it was done.
func (f *fake) execute(cmd []byte) []byte {
	word, arg, _ := strings.Cut(string(cmd), " ")
	if f.page.State() == abi.SlotFailed {
		return []byte("slot has failed")
	}
	switch word {
	case "add": // durable
		n := binary.LittleEndian.Uint64(f.state)
		binary.LittleEndian.PutUint64(f.state, n+1)
		if status := f.save(); status != abi.StatusOK {
			binary.LittleEndian.PutUint64(f.state, n)
			if status != abi.StatusStorage {
				unix.Exit(5)
			}
			return []byte("not stored")
		}
		return fmt.Appendf(nil, "ok %d", n+1)
	case "get":
		return fmt.Appendf(nil, "ok %d %x", binary.LittleEndian.Uint64(f.state), f.state[8:])
	case "uid":
		return fmt.Appendf(nil, "ok %d", os.Getuid())
	case "fds":
		out := []byte("ok")
		entries, _ := os.ReadDir("/proc/self/fd")
		for _, e := range entries {
			if link, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
				out = fmt.Appendf(out, " %s", link)
			}
		}
		return out
	case "env":
		return fmt.Appendf(nil, "ok %q", os.Environ())
	case "minseq":
		return fmt.Appendf(nil, "ok %d %#x", f.setup.MinSeq, uint32(f.setup.Flags))
	case "fail":
		f.page.SetState(abi.SlotFailed)
		return []byte("ok")
	case "fail-late": // looks idle, as before a submission is read
		f.page.SetBusy(false)
		f.page.SetCounters(wire.Counters{Commands: 100})
		fds := []unix.PollFd{{Fd: wire.SupervisorFD, Events: unix.POLLIN}}
		unix.Poll(fds, -1)
		f.page.SetState(abi.SlotFailed)
		return []byte("ok")
	case "sleep":
		d, _ := time.ParseDuration(arg)
		time.Sleep(d)
		return []byte("ok")
	}
	return f.misbehave(word)
}

// misbehave breaks the protocol with the card. It does not come back if the card
// does what it should.
func (f *fake) misbehave(how string) []byte {
	switch how {
	case "crash":
		unix.Kill(os.Getpid(), unix.SIGKILL)
	case "stall": // deaf
		time.Sleep(2 * time.Minute)
		unix.Exit(6)
	case "save-foreign":
		f.saveAs(fakeSlot(sealed.SlotID{9}, [32]byte{9}), f.generation+1, f.setup.Epoch)
	case "save-old":
		f.saveAs(fakeSlot(f.setup.Slot, f.setup.Key), f.generation, f.setup.Epoch)
	case "save-future":
		f.saveAs(f.slot, f.generation+1, f.setup.Epoch+1)
	case "save-garbage":
		copy(f.mem[wire.BlobOffset:], slices.Repeat([]byte{0xa5}, 4096))
		f.send(wire.AppendSave(nil, wire.Save{Length: 4096}))
	case "certify": // though it serves
		f.ask()
	case "save-huge":
		f.send(wire.AppendSave(nil, wire.Save{Length: 0xffffffff}))
	case "ready":
		f.send(wire.AppendReady(nil, &wire.Ready{}))
	case "garbage":
		f.send([]byte("garbage"))
	case "descriptor":
		fakeMust(wire.Send(wire.SupervisorFD, wire.AppendSave(nil, wire.Save{Length: 1}), 0))
	case "flood":
		for { // never reads an answer
			blob, err := f.slot.Seal(nil, sealed.KindPermanent, f.generation+1, f.setup.Epoch, f.state)
			fakeMust(err)
			f.generation++
			copy(f.mem[wire.BlobOffset:], blob)
			if wire.Send(wire.SupervisorFD, wire.AppendSave(nil, wire.Save{Length: uint32(len(blob))})) != nil {
				unix.Exit(0)
			}
		}
	default:
		return []byte("no such command")
	}
	time.Sleep(time.Minute)
	return []byte("ok, and the card did not mind")
}
