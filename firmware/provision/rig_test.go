// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/firmware/engine"
)

// libtpms is one per process: the tests share it and are not parallel.
var engineOnce = sync.OnceValues(engine.New)

// machine is a TPM with its permanent state, as a worker keeps it.
type machine struct {
	*tpmtest.TPM
	eng  *engine.Engine
	perm []byte
}

// newMachine makes a TPM from perm, or a new one, that was not started yet.
func newMachine(t testing.TB, perm []byte) *machine {
	t.Helper()
	eng, err := engineOnce()
	if err != nil {
		t.Fatal(err)
	}
	eng.FastCurves(true)
	m := &machine{eng: eng, perm: perm}
	m.TPM = tpmtest.New(t, m.send)
	t.Cleanup(eng.Stop)
	if perm == nil {
		err = eng.Manufacture()
	} else {
		err = eng.Load(perm, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) send(cmd []byte) ([]byte, error) {
	resp := make([]byte, engine.MaxResponse)
	n, _, err := m.eng.Process(0, bytes.Clone(cmd), resp)
	return resp[:n], err
}

// save takes what the TPM stored.
func (m *machine) save() []byte {
	if b := m.eng.Stored(nil); len(b) != 0 {
		m.perm = b
	}
	return m.perm
}

func (m *machine) restart() error {
	if len(m.save()) == 0 {
		return errors.New("nothing was stored")
	}
	return m.eng.Load(m.perm, nil)
}

// sample is a TPM provisioned with everything, made once.
var sample struct {
	once sync.Once
	perm []byte
	res  Result
}

// newProvisioned gives the sample TPM after a power cycle and TPM2_Startup.
func newProvisioned(t testing.TB) (*machine, Result) {
	t.Helper()
	sample.once.Do(func() {
		m := newMachine(t, nil)
		res, err := Provision(m.eng, m.restart, abi.DefaultKeys, abi.DefaultBanks)
		if err != nil {
			t.Fatal(err)
		}
		sample.perm, sample.res = m.save(), res
	})
	if sample.perm == nil {
		t.Fatal("the sample TPM could not be provisioned")
	}
	m := newMachine(t, sample.perm)
	m.Startup()
	return m, sample.res
}
