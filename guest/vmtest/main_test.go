// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"hwvtpm/guest/lab"
)

// environment prepares the lab once for all tests.
var environment = sync.OnceValues(func() (*lab.Env, error) {
	env, err := lab.Find()
	if err != nil {
		return nil, err
	}
	fmt.Printf("accelerator: %s\n", env.Accel)
	return env, env.Prepare(context.Background(), os.Stderr)
})

// bed is what one test works in: a rig, and a deadline that only a hang meets.
type bed struct {
	*lab.Rig
	*testing.T
	ctx context.Context
}

// newBed makes a bed for one of several tests that run at once: emulation of a machine
// with one processor keeps one of the host's busy.
func newBed(t *testing.T) *bed {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_VM") != "1" {
		t.Skip("set HWVTPM_TEST_VM=1 to boot virtual machines")
	}
	t.Parallel()
	env, err := environment()
	if err != nil {
		t.Fatal(err)
	}
	rig, err := lab.NewRig(env, t.ArtifactDir())
	if err != nil {
		t.Fatal(err)
	}
	rig.Logf = t.Logf
	t.Cleanup(func() {
		if err := rig.Close(); err != nil {
			t.Errorf("ending the rig: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), env.Patience(3*time.Minute))
	t.Cleanup(cancel)
	return &bed{Rig: rig, T: t, ctx: ctx}
}

// must ends the test if err is not nil.
func (b *bed) must(what string, err error) {
	b.Helper()
	if err != nil {
		b.Fatalf("%s: %v", what, err)
	}
}
