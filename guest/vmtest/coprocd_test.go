// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"hwvtpm/coproc/admin"
	"hwvtpm/guest/agent"
	"hwvtpm/guest/lab"
)

// A guest whose TPM is a slot of coprocd notices nothing when the slot is parked,
// when its worker is killed, and when coprocd is killed and started again, all of
// it under load. A reset of the machine is what resets its PCRs.
func TestCoprocdIsKilledUnderLoad(t *testing.T) {
	b := newBed(t)
	c, err := b.StartCoprocd(b.ctx)
	b.must("starting coprocd", err)
	m := b.powerOnAt(variant{"both", true}, c)
	m.define(8)
	start := m.readPCR()
	m.must("starting the load", m.guest.Agent.Call(m.ctx, agent.OpLoadStart, agent.LoadArgs{Index: nvIndex, PCR: pcr}, nil))
	for n := range 12 {
		time.Sleep(rand.N(30 * time.Millisecond))
		if n%4 == 3 {
			m.must("restarting coprocd", c.Restart())
		} else {
			_, err := c.KillWorker(m.ctx)
			m.must("killing the worker", err)
		}
		m.awaitProgress()
	}
	var end agent.LoadStatus
	m.must("stopping the load", m.guest.Agent.Call(m.ctx, agent.OpLoadStop, nil, &end))
	if end.Error != "" {
		t.Errorf("the guest saw an error: %s", end.Error)
	}
	want := digest(agent.LoadPCR(start, end.PCR))
	m.wantPCR("all kills", want)
	if got := binary.BigEndian.Uint64([]byte(m.readNV(8))); got != end.NV {
		t.Errorf("NV holds %d, want the last acknowledged value %d", got, end.NV)
	}
	m.park(c)
	m.wantPCR("parking", want)

	m.reset()
	m.wantPCR("a reset of the machine", digest{})
	if got := binary.BigEndian.Uint64([]byte(m.readNV(8))); got != end.NV {
		t.Errorf("after a reset NV holds %d, want %d", got, end.NV)
	}
	m.powerOff()
}

// park has the slot put to rest. A slot that was used just now is busy still.
func (m *machine) park(c *lab.Coprocd) {
	m.Helper()
	m.must("parking the slot", c.Admin(m.ctx, func(a *admin.Client) error {
		info, err := a.Show(m.ctx, c.Slot)
		if err == nil {
			err = a.Park(m.ctx, info)
		}
		return err
	}))
}
