// SPDX-License-Identifier: Apache-2.0

package virt

import (
	"crypto/sha256"

	"github.com/google/go-cmp/cmp"

	"hwvtpm/guest/agent"
)

const (
	pcr        = 8         // only a reset of the machine clears it
	nvIndex    = 0x1500020 // in the owner's range
	kept       = "kept by the TPM"
	persistent = "0x81000100"
)

type digest = [sha256.Size]byte

// fill uses the TPM and leaves in it what must outlive a machine: an NV index and
// a persistent key.
func (m *machine) fill() {
	m.Helper()
	m.measured = m.readMeasured()
	if got := m.sh("tpm2_getrandom --hex 32"); len(got) != 64 {
		m.Errorf("tpm2_getrandom --hex 32 printed %q", got)
	}
	m.must("defining an NV index", m.agent.Call(m.ctx, agent.OpNVDefine, agent.NVArgs{Index: nvIndex, Size: uint16(len(kept))}, nil))
	m.writeNV(kept)
	m.sh("tpm2_createprimary -Q -C o -G ecc256 -c /primary.ctx && tpm2_evictcontrol -Q -C o -c /primary.ctx " + persistent)
	m.keyName = m.readKey()
}

func (m *machine) writeNV(data string) {
	m.Helper()
	m.must("writing NV", m.agent.Call(m.ctx, agent.OpNVWrite, agent.NVArgs{Index: nvIndex, Data: []byte(data)}, nil))
}

func (m *machine) readKey() string {
	m.Helper()
	return m.sh("tpm2_readpublic -Q -c " + persistent + " -n /key.name && hexdump /key.name")
}

// touch leaves in the TPM what a reset of the machine clears, and returns the PCR:
// a measurement, and a key that is loaded past the kernel's resource manager.
func (m *machine) touch() digest {
	m.Helper()
	event := sha256.Sum256([]byte("event"))
	m.must("extending the PCR", m.agent.PCRExtend(m.ctx, "sha256", pcr, event[:]))
	m.sh("tpm2_createprimary -Q -T device:/dev/tpm0 -C n -G ecc256 -c /transient.ctx")
	return sha256.Sum256(append(make([]byte, sha256.Size), event[:]...))
}

// transients lists the loaded keys, but for those of the resource manager.
func (m *machine) transients() string {
	m.Helper()
	return m.sh("tpm2_getcap -T device:/dev/tpm0 handles-transient")
}

// wantFresh: the TPM is as after a reset, and has kept what fill left in it.
func (m *machine) wantFresh(after string) {
	m.Helper()
	m.wantPCR(after, digest{})
	if got := m.transients(); got != "" {
		m.Errorf("after %s the TPM has transient objects: %s", after, got)
	}
	m.wantKept(after)
}

// wantLast: the TPM is as touch left it.
func (m *machine) wantLast(after string, want digest) {
	m.Helper()
	m.wantPCR(after, want)
	if m.transients() == "" {
		m.Errorf("after %s the loaded key is gone", after)
	}
	m.wantKept(after)
}

// readMeasured reads the PCRs of the firmware, which measures the same at each boot.
// The virtio TPM it does not know, so there they are zero.
func (m *machine) readMeasured() agent.PCRs {
	m.Helper()
	values, err := m.agent.PCRRead(m.ctx, "sha256", 0, 1, 2, 3, 4, 5, 6, 7)
	m.must("reading the PCRs of the firmware", err)
	return values
}

// wantKept: NV index and persistent key are what fill left, and the firmware has
// measured once, into PCRs that were zero.
func (m *machine) wantKept(after string) {
	m.Helper()
	if diff := cmp.Diff(m.measured, m.readMeasured()); diff != "" {
		m.Errorf("after %s the PCRs of the firmware are others:\n%s", after, diff)
	}
	m.wantNV(after, kept)
	if got := m.readKey(); got != m.keyName {
		m.Errorf("after %s the persistent key is %s, want %s", after, got, m.keyName)
	}
}

func (m *machine) wantPCR(after string, want digest) {
	m.Helper()
	values, err := m.agent.PCRRead(m.ctx, "sha256", pcr)
	m.must("reading the PCR", err)
	if got := digest(values[pcr]); got != want {
		m.Errorf("after %s: PCR %d = %x, want %x", after, pcr, got, want)
	}
}

func (m *machine) wantNV(after, want string) {
	m.Helper()
	var d agent.Data
	m.must("reading NV", m.agent.Call(m.ctx, agent.OpNVRead, agent.NVArgs{Index: nvIndex, Size: uint16(len(want))}, &d))
	if string(d.Data) != want {
		m.Errorf("after %s: NV index holds %q, want %q", after, d.Data, want)
	}
}
