// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"hwvtpm/guest/agent"
	"hwvtpm/guest/lab"
	"hwvtpm/qmp"
)

// emulated is a machine with one of QEMU's own TPM devices.
type emulated struct {
	*machine
	qemu  string
	model string
}

// startEmulator starts a backend for QEMU's own devices.
func (b *bed) startEmulator() *machine {
	b.Helper()
	m := &machine{bed: b}
	var err error
	m.backend, err = b.StartBackend(b.ctx, lab.BackendOptions{Emulator: true})
	b.must("starting the backend", err)
	return m
}

// power boots a machine; opts may add to it.
func (e *emulated) power(opts lab.VMOptions) {
	e.Helper()
	opts.QEMU, opts.TPM = e.qemu, lab.EmulatorTPM{Backend: e.backend, Model: e.model}
	if e.qemu == e.Env.StockQEMU() && e.Env.Accel == lab.TCG {
		// Its emulation of CMPXCHG16B can damage the flags, of which a
		// kernel dies every other time.
		opts.Extra = append(opts.Extra, "-cpu", "max,cx16=off")
	}
	e.boot(opts)
	e.awaitDriver()
}

// awaitDriver waits until the kernel's own driver has made a TPM.
func (e *emulated) awaitDriver() {
	e.Helper()
	limit := time.Now().Add(e.Env.Patience(20 * time.Second))
	for e.guest.Agent.Call(e.ctx, agent.OpTPMInfo, agent.TPMArgs{}, nil) != nil {
		if time.Now().After(limit) {
			e.Fatalf("the guest got no TPM; its kernel says\n%s", e.sh("dmesg | grep -i tpm"))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// quit ends QEMU in order, which lets go of the backend.
func (e *emulated) quit() {
	e.Helper()
	e.must("quit", e.guest.QMP.Execute(e.ctx, qmp.Command{Execute: "quit"}, nil))
	e.must("QEMU's end", e.guest.Wait(e.ctx))
}

// stock are the machines that know nothing of this project: QEMU of today and of
// Debian 12, with each of its TPM devices.
func stock(m *machine) []*emulated {
	var all []*emulated
	for _, qemu := range []string{m.Env.StockQEMU(), m.Env.QEMU()} {
		for _, model := range []string{"tpm-crb", "tpm-tis"} {
			all = append(all, &emulated{machine: m, qemu: qemu, model: model})
		}
	}
	return all
}

// One TPM goes through all stock machines, one after the other: guests that know
// only QEMU's devices use it over resets and power cycles, and NV is kept.
func TestStockMachines(t *testing.T) {
	m := newBed(t).startEmulator()
	for i, e := range stock(m) {
		name := e.model
		if e.qemu == m.Env.StockQEMU() {
			name += " of QEMU 7.2"
		}
		t.Logf("%s", name)
		e.power(lab.VMOptions{})
		if i == 0 {
			e.define(uint16(len(kept)))
			e.writeNV(kept)
		}
		e.wantPCR("power-on with "+name, digest{})
		e.wantNV("power-on with "+name, kept)
		e.useStock()
		want := e.extend(name)
		e.must("stop", e.guest.QMP.Stop(e.ctx))
		e.must("cont", e.guest.QMP.Cont(e.ctx))
		e.wantPCR("stop and cont with "+name, want)
		if e.model == "tpm-crb" {
			e.suspend() // a reset, over which kernel and firmware keep PCRs
			e.wantPCR("suspend to RAM with "+name, want)
		}
		e.wantMigratable()
		e.reset()
		e.awaitDriver()
		e.wantPCR("system_reset with "+name, digest{})
		e.wantNV("system_reset with "+name, kept)
		// Else the reset would count as an attack on protected keys.
		if got := e.sh("tpm2_getcap properties-variable | grep orderly"); !strings.HasSuffix(got, "1") {
			t.Errorf("the TPM was not shut down before the reset: %s", got)
		}
		if e.model == "tpm-crb" {
			e.checkQuote(e.checkLog()) // of SeaBIOS
		}
		if i == 1 {
			e.guest.Kill() // the backend notices, and serves the next one
		} else {
			e.quit()
		}
	}
	m.must("ending the backend", m.backend.Close())
	m.must("the backend's end", m.backend.Wait(m.ctx))
}

// useStock goes over the TPM by the kernel, tpm2-tools and go-tpm.
func (e *emulated) useStock() {
	e.Helper()
	var info agent.TPMInfo
	e.must("capabilities", e.guest.Agent.Call(e.ctx, agent.OpTPMInfo, agent.TPMArgs{}, &info))
	if info.Family != "2.0" {
		e.Errorf("family is %q, want 2.0", info.Family)
	}
	if got := e.sh("tpm2_getrandom --hex 32"); len(got) != 64 {
		e.Errorf("tpm2_getrandom --hex 32 printed %q", got)
	}
	driver := e.sh("readlink /sys/class/tpm/tpm0/device/driver")
	if want := strings.ReplaceAll(e.model, "-", "_"); !strings.HasSuffix(driver, want) {
		e.Errorf("the driver is %s, want the kernel's own %s", driver, want)
	}
}

// wantMigratable: the TPM's state can travel with the machine.
func (e *emulated) wantMigratable() {
	e.Helper()
	var info struct {
		Reasons []string `json:"blocked-reasons"`
	}
	e.must("query-migrate", e.guest.QMP.Execute(e.ctx, qmp.Command{Execute: "query-migrate"}, &info))
	if len(info.Reasons) > 0 {
		e.Errorf("migration is blocked by %q", info.Reasons)
	}
}

// The engine dies again and again under a guest that knows nothing of it: each
// command succeeds, none is lost, none done twice.
func TestEngineIsKilledUnderStockGuest(t *testing.T) {
	const kills = 5
	m := newBed(t).startEmulator()
	e := &emulated{machine: m, qemu: m.Env.StockQEMU(), model: "tpm-crb"}
	e.power(lab.VMOptions{})
	e.define(8)
	start := e.readPCR()
	e.must("starting the load", e.guest.Agent.Call(e.ctx, agent.OpLoadStart, agent.LoadArgs{Index: nvIndex, PCR: pcr}, nil))
	seen := map[int]bool{}
	for range kills {
		e.killEngine(seen)
	}
	var end agent.LoadStatus
	e.must("stopping the load", e.guest.Agent.Call(e.ctx, agent.OpLoadStop, nil, &end))
	if end.Error != "" {
		t.Errorf("the guest saw an error: %s", end.Error)
	}
	if want := digest(agent.LoadPCR(start, end.PCR)); e.readPCR() != want {
		t.Errorf("PCR is not the value after the %d acknowledged extends", end.PCR)
	}
	if got := binary.BigEndian.Uint64([]byte(e.readNV(8))); got != end.NV {
		t.Errorf("NV holds %d, want the last acknowledged value %d", got, end.NV)
	}
}
