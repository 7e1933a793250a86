// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"hwvtpm/guest/agent"
	"hwvtpm/guest/lab"
)

const (
	virtioID = 38
	pcr      = 8         // only a reset of the machine clears it
	nvIndex  = 0x1500020 // in the owner's range
)

// Feature bits: of the device type, and of virtio.
const (
	bitFramed = 0
	bitPacked = 34
)

type digest = [sha256.Size]byte

// variant is what the backend offers to the guest.
type variant struct {
	layout string // --layout
	packed bool   // --packed
}

func (v variant) String() string {
	if v.packed {
		return v.layout + "-packed"
	}
	return v.layout + "-split"
}

// machine is a virtual machine with the backend of its TPM.
type machine struct {
	*bed
	variant variant
	monitor string       // the backend's monitor socket
	coprocd *lab.Coprocd // where the TPM is; nil: in a card of its own
	backend *lab.Backend
	guest   *lab.Guest
}

// powerOn boots a machine on the rig's TPM.
func (b *bed) powerOn(v variant) *machine {
	b.Helper()
	return b.powerOnAt(v, nil)
}

// powerOnAt boots a machine whose TPM is a slot of coprocd, if that is not nil.
func (b *bed) powerOnAt(v variant, c *lab.Coprocd) *machine {
	b.Helper()
	m := &machine{bed: b, variant: v, monitor: b.MonitorPath(), coprocd: c}
	m.startBackend()
	m.boot(lab.VMOptions{TPM: m.tpm()})
	m.awaitTPM()
	return m
}

func (m *machine) startBackend() {
	m.Helper()
	packed := "off"
	if m.variant.packed {
		packed = "on"
	}
	var err error
	m.backend, err = m.StartBackend(m.ctx, lab.BackendOptions{Layout: m.variant.layout, Packed: packed, QMP: m.monitor, Coprocd: m.coprocd})
	m.must("starting the backend", err)
}

func (m *machine) tpm() lab.VirtioTPM {
	return lab.VirtioTPM{Backend: m.backend}
}

func (m *machine) boot(opts lab.VMOptions) {
	m.Helper()
	opts.Monitor, opts.Tools = m.monitor, true
	var err error
	m.guest, err = m.Boot(m.ctx, opts)
	m.must("booting", err)
	for _, mod := range m.guest.Hello.Modules {
		if mod.Error != "" {
			m.Fatalf("module %s: %s", mod.Name, mod.Error)
		}
	}
}

// awaitTPM waits until the guest's driver has made a TPM of the device: the bus
// shows a driver as bound some time before it has finished.
func (m *machine) awaitTPM() agent.VirtioDevice {
	m.Helper()
	limit := time.Now().Add(m.Env.Patience(20 * time.Second))
	for m.guest.Agent.Call(m.ctx, agent.OpTPMInfo, agent.TPMArgs{}, nil) != nil {
		if time.Now().After(limit) {
			m.Fatalf("the guest got no TPM; its kernel says\n%s", m.sh("dmesg | tail -n 20; ls /dev/ | grep tpm"))
		}
		time.Sleep(50 * time.Millisecond)
	}
	devices, err := m.guest.Agent.Devices(m.ctx)
	m.must("listing devices", err)
	i := slices.IndexFunc(devices, func(d agent.VirtioDevice) bool { return d.ID == virtioID && d.Driver != "" })
	if i < 0 {
		m.Fatalf("the guest has a TPM, but not on the virtio bus: %+v", devices)
	}
	return devices[i]
}

// powerOff shuts guest and backend down in good order.
func (m *machine) powerOff() {
	m.Helper()
	m.must("powering off", m.guest.Agent.Poweroff(m.ctx))
	m.must("QEMU", m.guest.Wait(m.ctx))
	m.must("ending the backend", m.backend.Close())
	m.must("the backend's end", m.backend.Wait(m.ctx))
}

// sh runs a command line in the guest and returns what it prints.
func (m *machine) sh(line string) string {
	m.Helper()
	r, err := m.guest.Agent.Run(m.ctx, "gosh", "-c", line)
	m.must(line, err)
	m.must(line, r.Err())
	return strings.TrimSpace(string(r.Stdout))
}

// readPCR reads the PCR.
func (m *machine) readPCR() digest {
	m.Helper()
	values, err := m.guest.Agent.PCRRead(m.ctx, "sha256", pcr)
	m.must("reading the PCR", err)
	return digest(values[pcr])
}

// extend measures a text and returns the value that the PCR must then have.
func (m *machine) extend(text string) digest {
	m.Helper()
	before, event := m.readPCR(), sha256.Sum256([]byte(text))
	m.must("extending the PCR", m.guest.Agent.PCRExtend(m.ctx, "sha256", pcr, event[:]))
	return sha256.Sum256(append(before[:], event[:]...))
}

// wantPCR checks the PCR after something that must not have changed it, or must.
func (m *machine) wantPCR(after string, want digest) {
	m.Helper()
	if got := m.readPCR(); got != want {
		m.Errorf("after %s: PCR %d = %x, want %x", after, pcr, got, want)
	}
}

// define makes an NV index of a size that fits the texts of the tests.
func (m *machine) define(size uint16) {
	m.Helper()
	m.must("defining an NV index", m.guest.Agent.Call(m.ctx, agent.OpNVDefine, agent.NVArgs{Index: nvIndex, Size: size}, nil))
}

func (m *machine) writeNV(data string) {
	m.Helper()
	m.must("writing NV", m.guest.Agent.Call(m.ctx, agent.OpNVWrite, agent.NVArgs{Index: nvIndex, Data: []byte(data)}, nil))
}

func (m *machine) readNV(size int) string {
	m.Helper()
	var d agent.Data
	m.must("reading NV", m.guest.Agent.Call(m.ctx, agent.OpNVRead, agent.NVArgs{Index: nvIndex, Size: uint16(size)}, &d))
	return string(d.Data)
}

func (m *machine) wantNV(after, want string) {
	m.Helper()
	if got := m.readNV(len(want)); got != want {
		m.Errorf("after %s: NV index holds %q, want %q", after, got, want)
	}
}
