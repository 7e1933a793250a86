// SPDX-License-Identifier: Apache-2.0

package controltest

import (
	"encoding/asn1"
	"math/big"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest/programs"
	"hwvtpm/coproc/coproctest/swtpmtest"
	"hwvtpm/coproc/sim"
)

func encodeECDSA(r, s []byte) ([]byte, error) {
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)})
}

// built is the worker program.
var built = programs.New(sim.EngineName)

// Main runs a package's tests and removes what StartSim built, and the programs of
// other sets.
func Main(m *testing.M, more ...*programs.Set) int {
	return programs.Main(m, append(more, built)...)
}

// StartSim gives a new TPM of a simulated card.
func StartSim(t testing.TB) *TPM {
	t.Helper()
	card, err := sim.Open(sim.Config{Dir: filepath.Join(t.TempDir(), "tpm"), EnginePath: built.Path(t, sim.EngineName)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { card.Close() })
	slot, err := card.OpenSlot(t.Context(), sim.SlotName)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slot.PowerOn(t.Context(), coproc.RunID{1}); err != nil {
		t.Fatal(err)
	}
	p := &TPM{t, slotTransport{t, slot}}
	_, err = tpm2.Startup{StartupType: tpm2.TPMSUClear}.Execute(p)
	p.fatal("Startup", err)
	return p
}

type slotTransport struct {
	t    testing.TB
	slot coproc.Slot
}

func (s slotTransport) Send(cmd []byte) ([]byte, error) {
	resp := make([]byte, coproc.MaxTransfer)
	n, err := s.slot.Execute(s.t.Context(), coproc.Command{Bytes: cmd}, resp)
	return resp[:n], err
}

// Swtpm is a TPM as a manufacturer ships it: endorsement keys, and certificates
// for them in NV.
type Swtpm struct {
	*TPM
	Socket       string
	Manufacturer string // folder with the maker's certificates
}

// StartSwtpm makes one with swtpm_setup and starts it. It skips the test outside
// of the tier that has such programs.
func StartSwtpm(t testing.TB) *Swtpm {
	t.Helper()
	swtpmtest.Need(t)
	dir := swtpmtest.Dir(t)
	maker, err := swtpmtest.Manufacture(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &Swtpm{Manufacturer: maker, Socket: swtpmtest.Start(t, dir)}
	conn, err := linuxudstpm.Open(s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	s.TPM = &TPM{t, conn}
	return s
}

// ReadNV reads an NV index that anybody may read.
func (p *TPM) ReadNV(index tpm2.TPMHandle) []byte {
	p.t.Helper()
	r, err := tpm2.NVReadPublic{NVIndex: index}.Execute(p)
	p.fatal("NV_ReadPublic", err)
	pub, err := r.NVPublic.Contents()
	p.fatal("NV public area", err)
	var data []byte
	for len(data) < int(pub.DataSize) {
		chunk, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: r.NVName},
			Size:       min(512, pub.DataSize-uint16(len(data))), Offset: uint16(len(data)),
		}.Execute(p)
		p.fatal("NV_Read", err)
		data = append(data, chunk.Data.Buffer...)
	}
	return data
}
