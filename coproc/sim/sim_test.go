// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"testing"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
)

// Raw commands that need no marshaller.
var (
	cmdStartup     = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0}
	cmdGetRandom32 = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 32}
)

func testConfig(t testing.TB, dir string) Config {
	log := hclog.New(&hclog.LoggerOptions{Output: testWriter{t}, Level: hclog.Info})
	return Config{Dir: dir, EnginePath: built.Path(t, EngineName), Logger: log}
}

// testWriter sends the log to the test's output.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}

// openSlot opens a card and its slot for the length of the test.
func openSlot(t testing.TB, dir string) (*Card, coproc.Slot) {
	t.Helper()
	c, err := Open(testConfig(t, dir))
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	s, err := c.OpenSlot(t.Context(), SlotName)
	if err != nil {
		t.Fatalf("OpenSlot: %v", err)
	}
	return c, s
}

// execute runs a raw command and gives a copy of the response.
func execute(t testing.TB, s coproc.Slot, cmd []byte) []byte {
	t.Helper()
	resp := make([]byte, coproc.MaxTransfer)
	n, err := s.Execute(t.Context(), coproc.Command{Bytes: cmd}, resp)
	if err != nil {
		t.Fatalf("Execute(%x): %v", cmd, err)
	}
	return resp[:n]
}

func TestPowerOnStartupGetRandom(t *testing.T) {
	_, s := openSlot(t, t.TempDir()+"/tpm")
	r, err := s.PowerOn(t.Context(), coproc.RunID{1})
	if err != nil || r.Resumed {
		t.Fatalf("PowerOn = %+v, %v, want a power cycle", r, err)
	}
	if got := execute(t, s, cmdGetRandom32); !bytes.Equal(got[6:10], []byte{0, 0, 1, 0}) {
		t.Errorf("GetRandom before Startup = %x, want TPM_RC_INITIALIZE", got)
	}
	execute(t, s, cmdStartup)
	a, b := execute(t, s, cmdGetRandom32), execute(t, s, cmdGetRandom32)
	if len(a) != 44 || bytes.Equal(a, b) {
		t.Errorf("GetRandom = %x, then %x", a, b)
	}
	if err := s.Reset(t.Context()); err != nil {
		t.Fatalf("Reset: %v", err)
	}
	if got := execute(t, s, cmdGetRandom32); !bytes.Equal(got[6:10], []byte{0, 0, 1, 0}) {
		t.Errorf("GetRandom after Reset = %x, want TPM_RC_INITIALIZE", got)
	}
}
