// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
)

// handles lists the handles of a kind that the TPM has.
func handles(t *testing.T, m *machine, first tpm2.TPMHandle) []tpm2.TPMHandle {
	t.Helper()
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(first), PropertyCount: 64}.Execute(m)
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.CapabilityData.Data.Handles()
	if err != nil {
		t.Fatal(err)
	}
	return list.Handle
}

func TestProvisionLeavesPersistentKeysOnly(t *testing.T) {
	m, res := newProvisioned(t)
	want := []tpm2.TPMHandle{0x81000001, 0x81010001, 0x8101000a, 0x81010016}
	if got := handles(t, m, 0x81000000); !slices.Equal(got, want) {
		t.Errorf("persistent handles are %x, want %x", got, want)
	}
	if len(res.EKs) != 3 || len(res.Unstored) != 0 {
		t.Errorf("Result = %+v, want three endorsement keys", res)
	}
	fresh := newMachine(t, nil)
	if _, err := Provision(fresh.eng, fresh.restart, abi.KeyP256EK, abi.BankSHA256); err != nil {
		t.Fatal(err)
	}
	// Still the same run of the TPM, after its orderly end.
	for _, kind := range []tpm2.TPMHandle{0x80000000, 0x02000000, 0x03000000} {
		if got := handles(t, fresh, kind); len(got) != 0 {
			t.Errorf("handles %x are left over", got)
		}
	}
}

func TestProvisionMakesWhatIsAskedFor(t *testing.T) {
	for _, tt := range []struct {
		keys abi.Keys
		want []tpm2.TPMHandle
	}{
		{0, nil},
		{abi.KeyP384EK, []tpm2.TPMHandle{0x81010016}},
		{abi.KeyP256EK | abi.KeyP384EK, []tpm2.TPMHandle{0x8101000a, 0x81010016}},
		{abi.KeySRK, []tpm2.TPMHandle{0x81000001}},
	} {
		m := newMachine(t, nil)
		if _, err := Provision(m.eng, m.restart, tt.keys, abi.DefaultBanks); err != nil {
			t.Fatalf("keys %v: %v", tt.keys, err)
		}
		if got := handles(t, m, 0x81000000); !slices.Equal(got, tt.want) {
			t.Errorf("keys %v are at %x, want %x", tt.keys, got, tt.want)
		}
	}
}

// pcrBanks reads the banks with go-tpm, beside the reader of this package.
func pcrBanks(t *testing.T, m *machine) []tpm2.TPMIAlgHash {
	t.Helper()
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1}.Execute(m)
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.CapabilityData.Data.AssignedPCR()
	if err != nil {
		t.Fatal(err)
	}
	var on []tpm2.TPMIAlgHash
	for _, s := range list.PCRSelections {
		switch {
		case bytes.Equal(s.PCRSelect, []byte{0xff, 0xff, 0xff}):
			on = append(on, s.Hash)
		case bytes.ContainsFunc(s.PCRSelect, func(r rune) bool { return r != 0 }):
			t.Errorf("bank %v has only PCRs %x", s.Hash, s.PCRSelect)
		}
	}
	return on
}

func TestProvisionAllocatesBanks(t *testing.T) {
	algs := map[abi.Banks]tpm2.TPMIAlgHash{
		abi.BankSHA1: tpm2.TPMAlgSHA1, abi.BankSHA256: tpm2.TPMAlgSHA256,
		abi.BankSHA384: tpm2.TPMAlgSHA384, abi.BankSHA512: tpm2.TPMAlgSHA512,
	}
	for banks := abi.Banks(1); banks < 16; banks++ {
		var want []tpm2.TPMIAlgHash
		for bit, alg := range algs {
			if banks&bit != 0 {
				want = append(want, alg)
			}
		}
		slices.Sort(want)
		m := newMachine(t, nil)
		if _, err := Provision(m.eng, m.restart, 0, banks); err != nil {
			t.Fatalf("banks %v: %v", banks, err)
		}
		m = newMachine(t, m.save())
		m.Startup()
		got := pcrBanks(t, m)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("banks %v became %x, want %x", banks, got, want)
		}
	}
}

func TestNamesAreStable(t *testing.T) {
	m, res := newProvisioned(t)
	for range 3 {
		got, err := EndorsementKeys(m.eng, abi.DefaultKeys)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(res.EKs, got); diff != "" {
			t.Errorf("names changed (-made +read):\n%s", diff)
		}
		if err := m.restart(); err != nil {
			t.Fatal(err)
		}
		m.Startup()
	}
}

func TestEndorsementKeysLeavesOutWhatIsNotThere(t *testing.T) {
	m := newMachine(t, nil)
	m.Startup()
	if eks, err := EndorsementKeys(m.eng, abi.DefaultKeys); err != nil || len(eks) != 0 {
		t.Errorf("EndorsementKeys of an empty TPM = %v, %v", eks, err)
	}
	m, res := newProvisioned(t)
	eks, err := EndorsementKeys(m.eng, abi.KeyP384EK|abi.KeySRK)
	if err != nil || len(eks) != 1 || !bytes.Equal(eks[0].Name, res.EKs[2].Name) {
		t.Errorf("EndorsementKeys(p384, srk) = %v, %v", eks, err)
	}
}

func TestBadArgumentsReachNoTPM(t *testing.T) {
	restart := func() error { t.Error("restart called"); return nil }
	for _, tt := range []struct {
		keys  abi.Keys
		banks abi.Banks
	}{{abi.DefaultKeys, 0}, {abi.DefaultKeys, 16}, {16, abi.DefaultBanks}} {
		if _, err := Provision(nil, restart, tt.keys, tt.banks); err == nil {
			t.Errorf("Provision(%#x, %#x) went well", uint32(tt.keys), uint32(tt.banks))
		}
	}
	if _, err := NewIdentity(nil, restart, 16); err == nil {
		t.Error("NewIdentity of an unknown key went well")
	}
}

var errBroken = errors.New("broken")

// breaker fails one command of a dialogue, counted from 0, in its own way.
type breaker struct {
	TPM
	at, count int
	how       func(resp []byte) (int, error)
}

func (b *breaker) Process(locality uint8, cmd, resp []byte) (int, bool, error) {
	b.count++
	if b.count-1 == b.at {
		n, err := b.how(resp)
		return n, false, err
	}
	return b.TPM.Process(locality, cmd, resp)
}

// Whatever goes wrong, and at whatever command, is an error.
func TestEveryFailureIsReported(t *testing.T) {
	ways := map[string]func(resp []byte) (int, error){
		"engine error":  func([]byte) (int, error) { return 0, errBroken },
		"response code": func(resp []byte) (int, error) { return copy(resp, "\x80\x01\x00\x00\x00\x0a\x00\x00\x01\x01"), nil },
		"cut response":  func(resp []byte) (int, error) { return copy(resp, "\x80\x01\x00\x00\x00\x09\x00\x00\x00"), nil },
		"false length":  func(resp []byte) (int, error) { return copy(resp, "\x80\x01\x00\x00\x00\xff\x00\x00\x00\x00"), nil },
	}
	run := func(b *breaker, m *machine) error {
		_, err := Provision(b, m.restart, abi.KeyP256EK, abi.BankSHA256)
		return err
	}
	m := newMachine(t, nil)
	whole := &breaker{TPM: m.eng, at: -1}
	if err := run(whole, m); err != nil {
		t.Fatal(err)
	}
	for name, how := range ways {
		for at := range whole.count {
			m := newMachine(t, nil)
			if err := run(&breaker{TPM: m.eng, at: at, how: how}, m); err == nil {
				t.Errorf("%s at command %d of %d went unnoticed", name, at, whole.count)
			}
		}
	}
	m = newMachine(t, nil)
	if _, err := Provision(m.eng, func() error { return errBroken }, 0, abi.DefaultBanks); !errors.Is(err, errBroken) {
		t.Errorf("a failing power cycle gives %v", err)
	}
}

func TestErrorsNameTheCommand(t *testing.T) {
	m := newMachine(t, nil)
	m.Startup()
	_, err := Provision(m.eng, m.restart, 0, abi.DefaultBanks)
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Command != "TPM2_Startup" || e.Code != 0x100 || !strings.Contains(err.Error(), "TPM_RC_INITIALIZE") {
		t.Errorf("provisioning a started TPM: %v, want TPM2_Startup's TPM_RC_INITIALIZE", err)
	}
	for err, want := range map[*Error]string{
		{"TPM2_X", 0x9a2}: "TPM2_X: TPM_RC_BAD_AUTH (0x9a2)",
		{"TPM2_X", 0x1c4}: "TPM2_X: TPM_RC_VALUE (0x1c4)",
		{"TPM2_X", 0x18b}: "TPM2_X: TPM_RC_HANDLE (0x18b)",
		{"TPM2_X", 0x12f}: "TPM2_X: response code 0x12f",
	} {
		if got := err.Error(); got != want {
			t.Errorf("error %#x reads %q, want %q", err.Code, got, want)
		}
	}
}

func TestNewIdentity(t *testing.T) {
	const content = "kept"
	m, res := newProvisioned(t)
	m.DefineNV(tpmtest.NVBase, len(content))
	m.WriteNV(tpmtest.NVBase, []byte(content))
	sealed := create(t, m, srk(t, m))

	got, err := NewIdentity(m.eng, m.restart, abi.DefaultKeys)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.EKs) != 3 || len(got.Unstored) != 0 {
		t.Fatalf("Result = %+v, want three endorsement keys", got)
	}
	for i := range got.EKs {
		if got.EKs[i].Handle != res.EKs[i].Handle || bytes.Equal(got.EKs[i].Name, res.EKs[i].Name) {
			t.Errorf("endorsement key %x, which was %x", got.EKs[i], res.EKs[i])
		}
	}
	if err := m.restart(); err != nil {
		t.Fatal(err)
	}
	m.Startup()
	if eks, err := EndorsementKeys(m.eng, abi.DefaultKeys); err != nil || !cmp.Equal(eks, got.EKs) {
		t.Errorf("after a power cycle the keys are %x, %v", eks, err)
	}
	if nv := m.ReadNV(tpmtest.NVBase, len(content)); string(nv) != content {
		t.Errorf("the NV index reads %q", nv)
	}
	if _, err := sealed.load(m, srk(t, m)); err != nil {
		t.Errorf("an object of the storage root key does not load any more: %v", err)
	}
}

// The user of a slot may have changed its hierarchies before it is cloned.
func TestNewIdentityOfAnOwnedTPM(t *testing.T) {
	m, res := newProvisioned(t)
	for _, h := range []tpm2.TPMHandle{tpm2.TPMRHOwner, tpm2.TPMRHEndorsement, tpm2.TPMRHLockout, tpm2.TPMRHPlatform} {
		_, err := tpm2.HierarchyChangeAuth{AuthHandle: h, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("mine")}}.Execute(m)
		if err != nil {
			t.Fatalf("set the password of %#x: %v", uint32(h), err)
		}
	}
	got, err := NewIdentity(m.eng, m.restart, abi.DefaultKeys)
	if err != nil {
		t.Fatal(err)
	}
	if want := []uint32{0x81010001, 0x8101000a, 0x81010016}; !slices.Equal(got.Unstored, want) {
		t.Errorf("Unstored = %x, want %x", got.Unstored, want)
	}
	if err := m.restart(); err != nil {
		t.Fatal(err)
	}
	m.Startup()
	if eks, err := EndorsementKeys(m.eng, abi.DefaultKeys); err != nil || len(eks) != 0 {
		t.Errorf("old endorsement keys are left: %x, %v", eks, err)
	}
	p := &provisioner{tpm: m.eng}
	_, _, name, err := p.create(&catalog[1]) // the endorsement password is gone
	if err != nil || !bytes.Equal(name, got.EKs[1].Name) || bytes.Equal(name, res.EKs[1].Name) {
		t.Errorf("the key made from its template is %x, %v; announced was %x", name, err, got.EKs[1].Name)
	}
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte("\x80\x01\x00\x00\x00\x0a\x00\x00\x00\x00"))
	f.Add([]byte("\x80\x01\x00\x00\x00\x17\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x01\x00\x0b\xff\x00"))
	f.Fuzz(func(t *testing.T, resp []byte) {
		p := &provisioner{tpm: &breaker{how: func(dst []byte) (int, error) { return copy(dst, resp), nil }}}
		p.checkBanks(abi.DefaultBanks)
		p = &provisioner{tpm: &breaker{how: func(dst []byte) (int, error) { return copy(dst, resp), nil }}}
		p.create(&catalog[0])
	})
}
