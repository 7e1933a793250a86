// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-eventlog/testdata"
)

// FuzzLog: who has a machine has a log of any content lead to its PCRs. Neither the log
// nor what is read of it afterwards may end the verifier.
func FuzzLog(f *testing.F) {
	variable, unknown := []byte{7, 0, 0, 0, 1, 0, 0, 0x80}, []byte{7, 0, 0, 0, 0xff, 0xff, 0, 0x80} // PCR and type of an event
	for _, seed := range [][]byte{
		bootLogBytes, testdata.Ubuntu2104NoDbxEventLog,
		bytes.Replace(bootLogBytes, variable, unknown, 1),
	} {
		if !leads(seed) {
			f.Fatal("a log of the test leads nowhere")
		}
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, raw []byte) { leads(raw) })
}

// leads has a log lead to PCRs, if it is one, and be judged.
func leads(raw []byte) bool {
	parsed, err := tcg.ParseEventLog(raw, tcg.ParseOpts{AllowPadding: true})
	if err != nil {
		return false
	}
	values := PCRs{}
	for n := range firmwarePCRs {
		values.Set("sha256", n, make([]byte, 32))
	}
	for _, e := range parsed.Events(register.HashSHA256) {
		if e.Type != tcg.NoAction && e.Index >= 0 && e.Index < firmwarePCRs && len(e.Digest) == 32 {
			sum := sha256.Sum256(append(bytes.Clone(values.Get("sha256", e.Index)), e.Digest...))
			values.Set("sha256", e.Index, sum[:])
		}
	}
	l, err := replay(raw, values)
	if err != nil {
		return false
	}
	_ = (&LayerPolicy{SecureBoot: true}).judge(values, l)
	return true
}
