// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/pcrmap"
)

// attacker sends whatever it likes, at any locality, to a slot whose PCR 0-7 are a
// host's, while the worker dies and the machine is reset.
type attacker struct {
	*rig
	host abi.PCRMap
	srv  *server
	msg  []byte
	rc   map[uint32]int

	launches map[abi.Status]int
}

func newAttacker(t testing.TB) *attacker {
	a := &attacker{rig: newRig(t), host: hostMap(5), rc: map[uint32]int{}, launches: map[abi.Status]int{}}
	a.powerOn(a.run)
	a.mapPCRs(a.host)
	a.serve()
	return a
}

func (a *attacker) serve() {
	a.srv = &server{slot: a.slot, running: &running{cancelTPM: func() {}}, hello: true}
}

// handle sends a submission as it comes over the data socket.
func (a *attacker) handle(sub abi.Submission) abi.Completion {
	a.seq++
	sub.Seq = a.seq
	a.msg = abi.AppendSubmission(a.msg[:0], &sub)
	n, _ := a.srv.handle(a.msg)
	c, err := abi.ParseCompletion(a.srv.out[:n])
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// submit sends a command.
func (a *attacker) submit(locality uint8, cmd []byte) {
	c := a.handle(abi.Submission{Op: abi.OpExecute, Locality: locality, Payload: cmd})
	if c.Status != abi.StatusOK {
		a.t.Fatalf("command %x: %v", cmd, c.Status)
	}
	a.rc[responseCode(c.Payload)]++
}

// launch sends a hash sequence.
func (a *attacker) launch() {
	c := a.handle(abi.Submission{Op: abi.OpHash, Payload: append(abi.AppendHashPlace(nil, abi.HashPlace{Size: 4}), "data"...)})
	a.launches[c.Status]++
}

// check checks that PCR 0-7 are the host's in every bank in use.
func (a *attacker) check(what string) {
	a.t.Helper()
	for alg, bank := range map[tpm2.TPMIAlgHash]abi.Banks{
		tpm2.TPMAlgSHA1: abi.BankSHA1, tpm2.TPMAlgSHA256: abi.BankSHA256,
		tpm2.TPMAlgSHA384: abi.BankSHA384, tpm2.TPMAlgSHA512: abi.BankSHA512,
	} {
		r, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
			{Hash: alg, PCRSelect: tpm2.PCClientCompatible.PCRs(0, 1, 2, 3, 4, 5, 6, 7)},
		}}}.Execute(a.tpm)
		if err == tpm2.TPMRCInitialize {
			return
		}
		if err != nil {
			a.t.Fatalf("%s: PCR_Read: %v", what, err)
		}
		for pcr, d := range r.PCRValues.Digests {
			if want := pcrmap.Wanted(&a.host, bank, pcr); !bytes.Equal(d.Buffer, want) {
				a.t.Fatalf("%s: PCR %d of %v = %x, want %x", what, pcr, bank, d.Buffer, want)
			}
		}
	}
}

// Commands of the attacker, before it changes bytes of them.
func attacks() [][]byte {
	be := binary.BigEndian
	auth := []byte{0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0}
	command := func(code uint32, handles []uint32, params ...byte) []byte {
		b := []byte{0x80, 0x01, 0, 0, 0, 0}
		if len(handles) > 0 {
			b[1] = 2
		}
		b = be.AppendUint32(b, code)
		for _, h := range handles {
			b = be.AppendUint32(b, h)
		}
		if len(handles) > 0 {
			b = append(b, auth...)
		}
		b = append(b, params...)
		be.PutUint32(b[2:], uint32(len(b)))
		return b
	}
	digest := append([]byte{0, 0, 0, 1, 0, 0x0b}, bytes.Repeat([]byte{0xa5}, 32)...)
	all := [][]byte{
		command(ccStartup, nil, 0, 0), command(ccStartup, nil, 0, 1), command(ccShutdown, nil, 0, 1),
		command(0x186, nil, 0, 0, 0, 0x10), // HashSequenceStart, of an event
		command(0x126, []uint32{0x4000000c}), command(0x125, []uint32{0x4000000c}), command(0x124, []uint32{0x4000000c}),
		command(0x12b, []uint32{0x4000000c}, 0, 0, 0, 1, 0, 0x0b, 3, 0, 0, 0),
		command(0x12c, []uint32{0x4000000c}, 0, 0, 0, 0x10, 0, 0, 0, 0),
	}
	for _, h := range []uint32{0, 3, 7, 8, 16, 23, 0x40000007} {
		all = append(all, command(0x182, []uint32{h}, digest...), command(0x13c, []uint32{h}, 0, 2, 1, 2),
			command(0x13d, []uint32{h}), command(0x183, []uint32{h}, 0, 0),
			command(0x185, []uint32{h, 0x80000000}, 0, 0))
	}
	return all
}

// attack does n things that the bytes of a source decide about.
func (a *attacker) attack(rng *rand.Rand, n int) {
	all := attacks()
	for range n {
		cmd := bytes.Clone(all[rng.IntN(len(all))])
		for range rng.IntN(3) {
			cmd[rng.IntN(len(cmd))] = byte(rng.IntN(256))
		}
		switch rng.IntN(20) {
		case 0:
			a.shut()
			a.open()
			a.powerOn(a.run)
			a.serve()
		case 1:
			a.reset()
		case 2:
			a.submit(uint8(rng.IntN(5)), all[rng.IntN(2)]) // Startup, which else is rare
		case 3:
			a.launch()
		default:
			a.submit(uint8(rng.IntN(5)), cmd)
		}
		a.check("after an attack")
	}
}

// TestNobodyChangesHostPCRs: nothing that a guest sends changes what is mapped.
func TestNobodyChangesHostPCRs(t *testing.T) {
	a := newAttacker(t)
	n := 4000
	if testing.Short() {
		n = 400
	}
	a.attack(rand.New(rand.NewPCG(1, 2)), n)
	for _, rc := range []uint32{rcSuccess, rcLocality, rcInitialize} {
		if a.rc[rc] < 10 {
			t.Errorf("response code %#x came %d times: the attack is too weak", rc, a.rc[rc])
		}
	}
	for _, status := range []abi.Status{abi.StatusOK, abi.StatusUnsupported} {
		if a.launches[status] == 0 {
			t.Errorf("no hash sequence ended with %v: the attack is too weak", status)
		}
	}
}

// TestCodeHasOneName: libtpms takes no other code for the commands that are refused,
// such as one with a reserved bit set.
func TestCodeHasOneName(t *testing.T) {
	a := newAttacker(t)
	all := attacks()
	a.submit(0, all[0])
	for _, cmd := range all {
		if !changesHostPCR(cmd) {
			continue
		}
		for bit := 16; bit < 32; bit++ {
			other := bytes.Clone(cmd)
			other[9-bit/8] |= 1 << (bit % 8)
			a.submit(0, other)
			a.check("after a code with a bit more")
		}
	}
	if a.rc[rcSuccess] != 1 {
		t.Errorf("codes with a bit more succeeded: %v", a.rc)
	}
}

func FuzzHostPCRs(f *testing.F) {
	for i, cmd := range attacks() {
		f.Add(cmd, uint8(i%5), uint8(i))
	}
	all := attacks()
	f.Fuzz(func(t *testing.T, cmd []byte, locality, before uint8) {
		a := newAttacker(t)
		a.submit(locality%5, all[0])
		a.submit(0, all[int(before)%len(all)])
		if len(cmd) <= abi.MaxPayload {
			a.submit(locality%5, cmd)
		}
		a.check("after a command")
		a.shut()
		a.open()
		a.powerOn(a.run)
		a.check("after a kill")
		a.reset()
		a.serve()
		a.submit(0, all[0])
		a.check("after a reset")
	})
}
