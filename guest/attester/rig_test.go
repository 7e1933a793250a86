// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"hwvtpm/control/controltest"
	"hwvtpm/guest/attester/guesttest"
)

func TestMain(m *testing.M) { os.Exit(controltest.Main(m)) }

const vm = guesttest.VM

var nonce = []byte("a nonce of the verifier, 32 long")

// rig is a machine with its folder.
type rig struct {
	*guesttest.Rig
	t   *testing.T
	dir string
}

func (r *rig) fatal(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return &rig{guesttest.New(t), t, filepath.Join(t.TempDir(), "guest")}
}

func (r *rig) open() *Attester {
	r.t.Helper()
	a, err := Open(r.Bus, r.dir)
	r.fatal(err)
	r.t.Cleanup(func() { a.Close() })
	return a
}

// enrolled has a certificate in NV and is enrolled.
func enrolled(t *testing.T) (*rig, *Attester) {
	t.Helper()
	r := newRig(t)
	r.Write(0x01c0000a, r.EK.Raw)
	a := r.open()
	_, err := a.Enrol(t.Context(), AtDoor(r), EnrolOptions{})
	r.fatal(err)
	return r, a
}

var errHost = errors.New("the host is gone")

// gone is a host that doesn't answer.
type gone struct{}

func (gone) Call(context.Context, string, any, any) error { return errHost }
