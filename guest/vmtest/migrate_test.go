// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/guest/agent"
	"hwvtpm/guest/lab"
	"hwvtpm/qmp"
)

// belongings are what a TPM takes along when its machine moves.
type belongings struct {
	pcr    digest
	key    tpmtest.Object
	policy tpmtest.Policy
	digest tpmtest.Digest
}

// tpm gives the guest's TPM without the kernel's resource manager, which would take
// keys and sessions out of it.
func (e *emulated) tpm() *tpmtest.TPM {
	return tpmtest.New(e.T, func(cmd []byte) ([]byte, error) {
		var d agent.Data
		err := e.guest.Agent.Call(e.ctx, agent.OpTPMRaw, agent.RawArgs{TPMArgs: agent.TPMArgs{Device: "/dev/tpm0"}, Command: cmd}, &d)
		return d.Data, err
	})
}

func (e *emulated) pack() belongings {
	e.Helper()
	tpm := e.tpm()
	b := belongings{pcr: e.extend("before the move"), key: tpm.CreateSRK(), policy: tpm.StartPolicy()}
	tpm.Require(b.policy, tpm2.TPMCCUnseal)
	b.digest, _ = tpm.PolicyDigest(b.policy)
	return b
}

// wantUnpacked checks that the TPM is as before.
func (e *emulated) wantUnpacked(after string, b belongings) {
	e.Helper()
	e.wantPCR(after, b.pcr)
	e.wantNV(after, kept)
	tpm := e.tpm()
	if !tpm.Loaded(b.key) {
		e.Errorf("after %s: the transient key is gone", after)
	}
	if d, ok := tpm.PolicyDigest(b.policy); !ok || d != b.digest {
		e.Errorf("after %s: the session is gone, or its digest: %x", after, d)
	}
}

// migrate sends the machine to a URI, and waits until it is there.
func (e *emulated) migrate(uri string) error {
	cmd := qmp.Command{Execute: "migrate", Args: map[string]any{"uri": uri}}
	if err := e.guest.QMP.Execute(e.ctx, cmd, nil); err != nil {
		return err
	}
	for {
		var info struct {
			Status string `json:"status"`
			Error  string `json:"error-desc"`
		}
		if err := e.guest.QMP.Execute(e.ctx, qmp.Command{Execute: "query-migrate"}, &info); err != nil {
			return err
		}
		switch info.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("migration is %s: %s", info.Status, info.Error)
		}
		select {
		case <-e.ctx.Done():
			return e.ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// startOn starts another backend for the same slot.
func (b *bed) startOn(c *lab.Coprocd) *machine {
	b.Helper()
	m := &machine{bed: b, coprocd: c}
	var err error
	m.backend, err = b.StartBackend(b.ctx, lab.BackendOptions{Emulator: true, Coprocd: c})
	b.must("starting a backend", err)
	return m
}

// moveTo migrates a running machine to another QEMU and another backend.
func (e *emulated) moveTo(m *machine) *emulated {
	e.Helper()
	to := &emulated{machine: m, qemu: e.qemu, model: e.model}
	socket := filepath.Join(e.TempDir(), "migrate")
	sent := make(chan error, 1)
	go func() {
		for e.ctx.Err() == nil {
			if _, err := os.Stat(socket); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		sent <- e.migrate("unix:" + socket)
	}()
	to.power(lab.VMOptions{Name: "target", Extra: []string{"-incoming", "unix:" + socket}})
	e.must("migrating", <-sent)
	return to
}

// TestMachinesMove: machines migrate, are saved, and are restored, on the QEMU of
// today and on that of Debian 12. An older state is refused until somebody with
// the right to says otherwise.
func TestMachinesMove(t *testing.T) {
	for _, stockQEMU := range []bool{false, true} {
		name := "newest"
		if stockQEMU {
			name = "debian12"
		}
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			c, err := b.StartCoprocd(b.ctx)
			b.must("starting coprocd", err)
			e := &emulated{machine: b.startOn(c), qemu: b.Env.QEMU(), model: "tpm-crb"}
			if stockQEMU {
				e.qemu = b.Env.StockQEMU()
			}
			testMove(e)
		})
	}
}

func testMove(e *emulated) {
	e.power(lab.VMOptions{})
	e.define(uint16(len(kept)))
	e.writeNV(kept)
	things := e.pack()

	to := e.moveTo(e.startOn(e.coprocd))
	to.wantUnpacked("a live migration", things)
	things.pcr = to.extend("after the migration")
	e.quit()
	to.wantUnpacked("the source's end", things)

	file := filepath.Join(e.TempDir(), "saved")
	to.must("saving", to.migrate("exec:cat > "+file))
	to.quit()
	restore := lab.VMOptions{Name: "restored", Extra: []string{"-incoming", "exec:cat " + file}}
	to.power(restore)
	to.wantUnpacked("a restore", things)
	to.writeNV(strings.Repeat("x", len(kept)))
	to.quit()

	to.wantRefused(file)
	to.must("permitting", to.coprocd.Admin(to.ctx, func(a *admin.Client) error {
		info, err := a.Show(to.ctx, to.coprocd.Slot)
		if err == nil {
			err = a.PermitRestore(to.ctx, info, "test of going back")
		}
		return err
	}))
	to.power(restore)
	to.wantUnpacked("a restore of an older state", things)
	to.quit()
}

// wantRefused restores a saved machine whose TPM was used since.
func (e *emulated) wantRefused(file string) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.ctx, e.Env.Patience(20*time.Second))
	defer cancel()
	vm, err := e.StartVM(ctx, lab.VMOptions{
		Name: "refused", QEMU: e.qemu, TPM: lab.EmulatorTPM{Backend: e.backend, Model: e.model},
		Extra: []string{"-incoming", "exec:cat " + file},
	})
	if err == nil {
		err = vm.Wait(ctx)
	}
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		e.Errorf("QEMU took an older state: %v", err)
	}
	log, err := os.ReadFile(filepath.Join(e.Logs, "vhost-user-vtpm.log"))
	e.must("reading the log", err)
	for _, want := range []string{"the slot was used since this state was saved", "vtpmctl slot adopt NAME --restore"} {
		if !strings.Contains(string(log), want) {
			e.Errorf("the log does not say %q", want)
		}
	}
}
