// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/pcie"
)

// Addresses for the card. Only one of them is memory that it may use.
const (
	ownIOVA     = 1 << 20
	foreignIOVA = 1 << 30
	ownPages    = 4
)

// testForeignAddresses: a card that is told to use memory which is not mapped
// for it changes none, says what is wrong, and goes on after a reset.
func testForeignAddresses(t *testing.T) {
	const page = abi.PageSize
	for _, tc := range []struct {
		name           string
		sq, cq, answer uint64
	}{
		{"submission queue", foreignIOVA, ownIOVA + page, ownIOVA + 2*page},
		{"completion queue", ownIOVA, foreignIOVA, ownIOVA + 2*page},
		{"answer", ownIOVA, ownIOVA + page, foreignIOVA},
		{"all", foreignIOVA, foreignIOVA + page, foreignIOVA + 2*page},
		{"behind the end", ownIOVA, ownIOVA + page, ownIOVA + ownPages*page},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBare(t)
			abi.AppendSubmissionEntry(b.mem[:0], &abi.SubmissionEntry{
				Submission: abi.Submission{Op: abi.OpCardIdentify}, AnswerAt: tc.answer,
			})
			before := bytes.Clone(b.mem)
			if err := b.run(tc.sq, tc.cq); err != nil {
				t.Fatal(err)
			}
			status, err := b.await(abi.StatusFatal)
			if err != nil {
				t.Fatal(err)
			}
			if fault := abi.Fault(status >> 8); fault != abi.FaultAddress {
				t.Errorf("status %#x has fault %d, want %d", status, fault, abi.FaultAddress)
			}
			if !bytes.Equal(b.mem[:page], before[:page]) || !bytes.Equal(b.mem[3*page:], before[3*page:]) {
				t.Error("memory changed that the card had nothing to write to")
			}
			if err := b.Reset(); err != nil {
				t.Errorf("Reset: %v", err)
			}
			if status, err := b.word(abi.RegStatus); status != 0 || err != nil {
				t.Errorf("status after a reset is %#x, %v, want 0", status, err)
			}
		})
	}
	newRig(t, viaKernel()).checkInterrupts("afterwards")
}

// bare is the card without a driver.
type bare struct {
	pcie.Transport
	mem []byte // at ownIOVA
}

func newBare(t *testing.T) *bare {
	t.Helper()
	tr, err := viaKernel()(func() {})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { tr.Close() })
	const size = ownPages * abi.PageSize
	fd, err := unix.MemfdCreate("bare", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	if err := tr.Map(fd, ownIOVA, size); err != nil {
		t.Fatalf("Map: %v", err)
	}
	return &bare{tr, mem}
}

// run enables the card and rings for one submission.
func (b *bare) run(sq, cq uint64) error {
	const memoryAndMaster = 1<<1 | 1<<2
	if err := b.WriteConfig(4, []byte{memoryAndMaster, 0}); err != nil {
		return err
	}
	return errors.Join(
		b.post(abi.RegControl, abi.ControlReset),
		b.post(abi.RegAdminSQ, uint32(sq)), b.post(abi.RegAdminSQ+4, uint32(sq>>32)),
		b.post(abi.RegAdminCQ, uint32(cq)), b.post(abi.RegAdminCQ+4, uint32(cq>>32)),
		b.post(abi.RegAdminEntries, 8),
		b.post(abi.RegControl, abi.ControlEnable),
		b.post(abi.DoorbellOffset(0)+abi.DoorbellTail, 1),
	)
}

func (b *bare) post(off uint64, v uint32) error {
	return b.Post(off, binary.LittleEndian.AppendUint32(nil, v))
}

func (b *bare) word(off uint64) (uint32, error) {
	var w [4]byte
	err := b.Read(off, w[:])
	return binary.LittleEndian.Uint32(w[:]), err
}

// await waits for a bit of the status register.
func (b *bare) await(bit uint32) (uint32, error) {
	for deadline := time.Now().Add(hang); ; time.Sleep(time.Millisecond) {
		status, err := b.word(abi.RegStatus)
		if err != nil || status&bit != 0 {
			return status, err
		}
		if time.Now().After(deadline) {
			return status, fmt.Errorf("status stays %#x", status)
		}
	}
}
