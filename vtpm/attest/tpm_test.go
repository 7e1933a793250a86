// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"path/filepath"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/coproc/sim"
)

// tpm is a real TPM, libtpms, in the part of a machine's or of a host's.
type tpm struct {
	*tpmtest.TPM
	t testing.TB
}

// newTPM starts a TPM; with a map it shows the PCRs of a host.
func newTPM(t testing.TB, m *coproc.PCRMap) *tpm {
	t.Helper()
	card, err := sim.Open(sim.Config{Dir: filepath.Join(t.TempDir(), "tpm"), EnginePath: built.Path(t, sim.EngineName)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { card.Close() })
	slot, err := card.OpenSlot(t.Context(), sim.SlotName)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slot.PowerOn(t.Context(), coproc.RunID{1}); err != nil {
		t.Fatal(err)
	}
	if m != nil {
		if err := slot.(coproc.PCRMapper).MapPCRs(t.Context(), *m); err != nil {
			t.Fatal(err)
		}
	}
	p := &tpm{t: t, TPM: tpmtest.New(t, func(cmd []byte) ([]byte, error) {
		resp := make([]byte, coproc.MaxTransfer)
		n, err := slot.Execute(t.Context(), coproc.Command{Bytes: cmd}, resp)
		return resp[:n], err
	})}
	p.Startup()
	return p
}

// ok gives v, and fails the test on an error.
func ok[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// key is a loaded key with its public half.
type key struct {
	tpm    *tpm
	handle tpm2.NamedHandle
	public []byte // TPMT_PUBLIC
	pub    crypto.PublicKey
}

func (p *tpm) primary(template tpm2.TPMTPublic) *key {
	p.t.Helper()
	r, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(p)
	if err != nil {
		p.t.Fatal(err)
	}
	public := ok[*tpm2.TPMTPublic](p.t)(r.OutPublic.Contents())
	return &key{tpm: p, handle: tpm2.NamedHandle{Handle: r.ObjectHandle, Name: r.Name},
		public: tpm2.Marshal(public), pub: ok[crypto.PublicKey](p.t)(tpm2.Pub(*public))}
}

// aik makes a restricted signing key.
func (p *tpm) aik() *key { return p.primary(aikTemplate(true)) }

func aikTemplate(restricted bool) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true,
			NoDA: true, Restricted: restricted, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: tpm2.TPMECCNistP256,
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
		}),
	}
}

// rsaAIKTemplate is an RSA attestation key of a scheme.
func rsaAIKTemplate(scheme tpm2.TPMAlgID) tpm2.TPMTPublic {
	t := aikTemplate(true)
	t.Type = tpm2.TPMAlgRSA
	details := tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})
	if scheme == tpm2.TPMAlgRSAPSS {
		details = tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSAPSS, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: tpm2.TPMAlgSHA256})
	}
	t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		Scheme: tpm2.TPMTRSAScheme{Scheme: scheme, Details: details}, KeyBits: 2048,
	})
	return t
}

func (k *key) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle.Handle, Name: k.handle.Name, Auth: tpm2.PasswordAuth(nil)}
}

// Public, Sign and SignMessage make a restricted key a signer of certificates: the
// TPM hashes what it signs itself, and so knows that it is nothing of its own.
func (k *key) Public() crypto.PublicKey { return k.pub }

func (k *key) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("a restricted key signs no digests")
}

func (k *key) SignMessage(_ io.Reader, msg []byte, _ crypto.SignerOpts) ([]byte, error) {
	h, err := tpm2.Hash{Data: tpm2.TPM2BMaxBuffer{Buffer: msg}, HashAlg: tpm2.TPMAlgSHA256, Hierarchy: tpm2.TPMRHOwner}.Execute(k.tpm)
	if err != nil {
		return nil, err
	}
	s, err := tpm2.Sign{
		KeyHandle: k.auth(), Digest: h.OutHash, Validation: h.Validation,
		InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(k.tpm)
	if err != nil {
		return nil, err
	}
	sig, err := s.Signature.Signature.ECDSA()
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(sig.SignatureR.Buffer), new(big.Int).SetBytes(sig.SignatureS.Buffer)})
}

var _ crypto.MessageSigner = (*key)(nil)

// firmware is what layers quote if nothing else is said.
var firmware = map[string][]uint{"sha256": {0, 1, 2, 3, 4, 5, 6, 7}, "sha384": {0, 1, 2, 3, 4, 5, 6, 7}}

func selectionList(what map[string][]uint) tpm2.TPMLPCRSelection {
	var list tpm2.TPMLPCRSelection
	for _, b := range banks {
		if pcrs, has := what[b.name]; has {
			list.PCRSelections = append(list.PCRSelections, tpm2.TPMSPCRSelection{Hash: b.alg, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...)})
		}
	}
	return list
}

// quote has the key's TPM quote PCRs.
func (k *key) quote(extra []byte, what map[string][]uint) Quote {
	k.tpm.t.Helper()
	r, err := tpm2.Quote{
		SignHandle: k.auth(), QualifyingData: tpm2.TPM2BData{Buffer: extra},
		InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, PCRSelect: selectionList(what),
	}.Execute(k.tpm)
	if err != nil {
		k.tpm.t.Fatal(err)
	}
	return Quote{Attest: r.Quoted.Bytes(), Signature: tpm2.Marshal(r.Signature)}
}

// layer is a quote with the values it is over.
func (k *key) layer(extra []byte, what map[string][]uint) Layer {
	k.tpm.t.Helper()
	return Layer{Quote: k.quote(extra, what), PCRs: k.tpm.read(what)}
}

// read reads PCRs.
func (p *tpm) read(what map[string][]uint) PCRs {
	p.t.Helper()
	values := PCRs{}
	for _, b := range banks {
		for _, n := range what[b.name] {
			r, err := tpm2.PCRRead{PCRSelectionIn: selectionList(map[string][]uint{b.name: {n}})}.Execute(p)
			if err != nil || len(r.PCRValues.Digests) != 1 {
				p.t.Fatalf("read PCR %d of %s: %v", n, b.name, err)
			}
			values.Set(b.name, int(n), r.PCRValues.Digests[0].Buffer)
		}
	}
	return values
}

// boot measures the events of a log, as firmware does that writes one.
func (p *tpm) boot(log []byte) {
	p.t.Helper()
	el := ok[*tcg.EventLog](p.t)(tcg.ParseEventLog(log, tcg.ParseOpts{AllowPadding: true}))
	sha256s, sha384s := el.Events(register.HashSHA256), el.Events(register.HashSHA384)
	for i, e := range sha256s {
		if e.Type == tcg.NoAction {
			continue
		}
		digests := []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: e.Digest}, {HashAlg: tpm2.TPMAlgSHA384, Digest: sha384s[i].Digest}}
		if _, err := (tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(e.Index), Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: digests},
		}).Execute(p); err != nil {
			p.t.Fatal(err)
		}
	}
}

// pcrMap gives the PCRs to be mapped into a machine's TPM.
func (p *tpm) pcrMap() *coproc.PCRMap {
	p.t.Helper()
	values, m := p.read(firmware), &coproc.PCRMap{}
	for _, b := range values.banks() {
		var list [][]byte
		for n := range firmwarePCRs {
			list = append(list, values.Get(b.name, n))
		}
		if err := m.SetBank(b.abi, list); err != nil {
			p.t.Fatal(err)
		}
	}
	return m
}

// spki is the DER of a public key.
func spki(t testing.TB, pub crypto.PublicKey) []byte {
	return ok[[]byte](t)(x509.MarshalPKIXPublicKey(pub))
}
