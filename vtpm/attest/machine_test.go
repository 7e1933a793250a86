// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// goldenMachine is the machine's layer of the golden evidence, as a guest sends it.
func goldenMachine(t testing.TB) *Machine {
	t.Helper()
	ev := ok[*Evidence](t)(Parse(golden(t, "evidence.json")))
	return ok[*Machine](t)(ParseMachine(ok[[]byte](t)(json.Marshal(ev.VM))))
}

func TestCheckMachine(t *testing.T) {
	other := ok[*Evidence](t)(Parse(golden(t, "evidence.json")))
	for name, tc := range map[string]struct {
		change func(m *Machine, v *Verifier, nonce *[]byte)
		want   error
		claim  Name
	}{
		"whole":           {nil, nil, ""},
		"without log":     {func(m *Machine, _ *Verifier, _ *[]byte) { m.Log = nil }, nil, ""},
		"log of another":  {func(m *Machine, _ *Verifier, _ *[]byte) { m.Log = other.Host.Log }, nil, ""},
		"other nonce":     {func(_ *Machine, _ *Verifier, n *[]byte) { (*n)[0] ^= 1 }, ErrNotHeld, ClaimVMFresh},
		"short nonce":     {func(_ *Machine, _ *Verifier, n *[]byte) { *n = (*n)[:15] }, ErrNonce, ""},
		"foreign root":    {func(_ *Machine, v *Verifier, _ *[]byte) { v.Roots = x509.NewCertPool() }, ErrNotHeld, ClaimVMChain},
		"too late":        {func(_ *Machine, v *Verifier, _ *[]byte) { v.Now = now.Add(31 * 24 * time.Hour) }, ErrNotHeld, ClaimVMChain},
		"chain of the EK": {func(m *Machine, _ *Verifier, _ *[]byte) { m.Chain = other.Binding.Chain }, ErrNotHeld, ClaimVMChain},
		"quote of host":   {func(m *Machine, _ *Verifier, _ *[]byte) { m.Layer = *other.Host }, ErrNotHeld, ClaimVMQuote},
		"changed quote":   {func(m *Machine, _ *Verifier, _ *[]byte) { m.Quote.Attest[9] ^= 1 }, ErrNotHeld, ClaimVMQuote},
		"changed value":   {func(m *Machine, _ *Verifier, _ *[]byte) { m.PCRs.Get("sha256", 7)[0] ^= 1 }, ErrNotHeld, ClaimVMPCRs},
		"value left out":  {func(m *Machine, _ *Verifier, _ *[]byte) { delete(m.PCRs["sha384"], "0") }, ErrNotHeld, ClaimVMPCRs},
		"nothing":         {func(m *Machine, _ *Verifier, _ *[]byte) { *m = Machine{} }, ErrFormat, ""},
		"no chain":        {func(m *Machine, _ *Verifier, _ *[]byte) { m.Chain = "" }, ErrFormat, ""},
		"huge chain":      {func(m *Machine, _ *Verifier, _ *[]byte) { m.Chain = strings.Repeat("A", MaxChain+1) }, ErrFormat, ""},
		"huge log":        {func(m *Machine, _ *Verifier, _ *[]byte) { m.Log = make(Bytes, MaxLog+1) }, ErrFormat, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m, v, n := goldenMachine(t), goldenVerifier(t), slices.Clone(nonce)
			if tc.change != nil {
				tc.change(m, v, &n)
			}
			vm, err := CheckMachine(m, n, v.Roots, v.Now)
			if !errors.Is(err, tc.want) || tc.want == nil && err != nil {
				t.Fatalf("CheckMachine = %q, %v, want %v", vm, err, tc.want)
			}
			if want := map[bool]string{true: "vm-1"}[err == nil]; vm != want {
				t.Errorf("machine %q, want %q", vm, want)
			}
			if tc.claim != "" && !strings.Contains(err.Error(), string(tc.claim)+": ") {
				t.Errorf("the error does not name %s: %v", tc.claim, err)
			}
		})
	}
}

func TestParseMachineIsStrict(t *testing.T) {
	good := string(ok[[]byte](t)(json.Marshal(goldenMachine(t))))
	for name, text := range map[string]string{
		"nothing": "", "no object": "[]", "empty": "{}", "something behind": good + "{}",
		"unknown member": strings.Replace(good, `{"chain"`, `{"more":1,"chain"`, 1),
		"member twice":   strings.Replace(good, `{"chain"`, `{"chain":"","chain"`, 1),
		"capitals":       strings.Replace(good, `{"chain"`, `{"Chain"`, 1),
		"too large":      good + strings.Repeat(" ", MaxEvidence),
	} {
		if m, err := ParseMachine([]byte(text)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, %v, want ErrFormat", name, m != nil, err)
		}
	}
}
