// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"context"
	"encoding/binary"
	"testing"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi/tpmcmd"
)

// seedCommands gives a command for each code that TPMs know (TCG Part 2, 6.5.2),
// without parameters and with a password and some.
func seedCommands() (all [][]byte) {
	password := []byte{0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0}
	for code := uint32(0x11f); code <= 0x19f; code++ {
		plain := []byte{0x80, 0x01, 0, 0, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint32(plain[6:], code)
		full := append([]byte{0x80, 0x02}, plain[2:]...)
		full = append(full, 0x40, 0, 0, 1) // TPM_RH_OWNER
		full = append(append(full, password...), make([]byte, 64)...)
		all = append(all, plain, full)
	}
	return all
}

// FuzzCommands sends TPM commands that nobody would through the whole of it:
// driver, socket, a worker in its sandbox, libtpms. Each is answered by a TPM
// response, and no worker dies, be it of libtpms or of a system call that its
// sandbox forbids.
func FuzzCommands(f *testing.F) {
	d := startDaemon(f)
	card := d.open(d.create("vm"))
	slot, err := card.OpenSlot(context.Background(), "vm")
	if err != nil {
		f.Fatal(err)
	}
	if _, err := slot.PowerOn(context.Background(), coproc.RunID{1}); err != nil {
		f.Fatal(err)
	}
	resp := make([]byte, coproc.MaxTransfer)
	send := func(t testing.TB, locality uint8, cmd []byte) uint32 {
		n, err := slot.Execute(context.Background(), coproc.Command{Locality: locality, Bytes: cmd}, resp)
		if err != nil {
			t.Fatalf("Execute: %v", err)
		}
		if n < 10 || binary.BigEndian.Uint32(resp[2:]) != uint32(n) {
			t.Fatalf("response %x", resp[:n])
		}
		return binary.BigEndian.Uint32(resp[6:])
	}
	send(f, 0, []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0}) // TPM2_Startup(CLEAR)
	for _, cmd := range seedCommands() {
		f.Add(uint8(0), cmd)
	}
	f.Fuzz(func(t *testing.T, locality uint8, cmd []byte) {
		if len(cmd) >= 10 && locality < 128 { // the others have the size that they have
			binary.BigEndian.PutUint32(cmd[2:], uint32(len(cmd)))
		}
		rc := send(t, locality%5, cmd)
		if len(cmd) <= coproc.MaxTransfer && tpmcmd.ResultOfCode(rc) == tpmcmd.ResultFailure {
			t.Fatalf("the TPM is in failure mode: %#x", rc)
		}
		if h, err := slot.Health(t.Context()); err != nil || h.Restarts != 0 {
			t.Fatalf("%d restarts, %v", h.Restarts, err)
		}
	})
}
