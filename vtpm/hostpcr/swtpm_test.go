// SPDX-License-Identifier: Apache-2.0

package hostpcr

import (
	"crypto"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/swtpmtest"
)

// hardware is swtpm as the host's TPM, into which a machine's firmware has measured.
func hardware(t *testing.T, log []byte) transport.TPM {
	t.Helper()
	swtpmtest.Need(t)
	tpm, err := linuxudstpm.Open(swtpmtest.Start(t, swtpmtest.Dir(t)))
	if err != nil {
		t.Fatal(err)
	}
	measure(t, tpm, log)
	return tpm
}

// measure extends the TPM by a log, as the firmware did that wrote it.
func measure(t *testing.T, tpm transport.TPM, log []byte) {
	t.Helper()
	parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{AllowPadding: true})
	if err != nil {
		t.Fatal(err)
	}
	algs := map[register.HashAlg]tpm2.TPMIAlgHash{register.HashSHA1: tpm2.TPMAlgSHA1,
		register.HashSHA256: tpm2.TPMAlgSHA256, register.HashSHA384: tpm2.TPMAlgSHA384}
	for i, e := range parsed.Events(register.HashSHA256) {
		if e.Type == tcg.NoAction {
			continue
		}
		var l tpm2.TPMLDigestValues
		for alg, id := range algs {
			if d := parsed.Events(alg)[i].Digest; len(d) > 0 {
				l.Digests = append(l.Digests, tpm2.TPMTHA{HashAlg: id, Digest: d})
			}
		}
		if _, err := (tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(e.Index), Auth: tpm2.PasswordAuth(nil)}, Digests: l,
		}).Execute(tpm); err != nil {
			t.Fatalf("PCR_Extend: %v", err)
		}
	}
}

// newAK makes a restricted key that signs by a scheme.
func newAK(t *testing.T, tpm transport.TPM, public tpm2.TPMTPublic) AK {
	t.Helper()
	public.NameAlg = tpm2.TPMAlgSHA256
	public.ObjectAttributes = tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
		UserWithAuth: true, Restricted: true, SignEncrypt: true}
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(public)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := rsp.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.Pub(*pub)
	if err != nil {
		t.Fatal(err)
	}
	return AK{Handle: rsp.ObjectHandle, Name: rsp.Name, Public: crypto.PublicKey(key)}
}

// TestHardware: a TPM of another make, with keys of either kind.
func TestHardware(t *testing.T) {
	log := testLog(t, "ovmf-4banks.bin")
	tpm := hardware(t, log)
	for name, public := range map[string]tpm2.TPMTPublic{
		"ECDSA": {Type: tpm2.TPMAlgECC, Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: tpm2.TPMECCNistP256,
			Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA,
				&tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
		})},
		"RSASSA": {Type: tpm2.TPMAlgRSA, Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			KeyBits: 2048,
			Scheme: tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA,
				&tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})},
		})},
		"RSAPSS": {Type: tpm2.TPMAlgRSA, Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			KeyBits: 2048,
			Scheme: tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSAPSS, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSAPSS,
				&tpm2.TPMSSigSchemeRSAPSS{HashAlg: tpm2.TPMAlgSHA384})},
		})},
	} {
		t.Run(name, func(t *testing.T) {
			ak := newAK(t, tpm, public)
			defer tpm2.FlushContext{FlushHandle: ak.Handle}.Execute(tpm)
			h, err := New(Config{TPM: tpm, AK: ak, Log: func() ([]byte, error) { return log, nil }})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			r, err := h.Read(t.Context(), nonceA)
			if err != nil {
				t.Fatal(err)
			}
			m, err := r.Map()
			if err != nil || m.Banks()&abi.BankSHA256 == 0 {
				t.Fatalf("Map: %v, %v; %+v", m.Banks(), err, r.Banks)
			}
			t.Logf("banks %v, to be mapped %v", r.Values.Banks(), m.Banks())
			if _, err := (tpm2.PCREvent{PCRHandle: tpm2.AuthHandle{Handle: 23, Auth: tpm2.PasswordAuth(nil)},
				EventData: tpm2.TPM2BEvent{Buffer: []byte("no matter")}}).Execute(tpm); err != nil {
				t.Fatal(err)
			}
			if again, err := h.Read(t.Context(), nonceB); err != nil || again.Values != r.Values {
				t.Errorf("a second reading: %v", err)
			}
		})
	}
}
