// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"math/big"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// tpmOf lets go-tpm talk to the engine.
type tpmOf struct{ e *Engine }

func (t tpmOf) Send(cmd []byte) ([]byte, error) {
	resp := make([]byte, MaxResponse)
	n, _, err := t.e.Process(0, bytes.Clone(cmd), resp)
	return resp[:n], err
}

// nistCurves are the curves with fast code, in the order of Engine.Curves.
var nistCurves = []struct {
	id   tpm2.TPMECCCurve
	hash tpm2.TPMAlgID
	ec   elliptic.Curve
	dh   ecdh.Curve
}{
	{tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, elliptic.P256(), ecdh.P256()},
	{tpm2.TPMECCNistP384, tpm2.TPMAlgSHA384, elliptic.P384(), ecdh.P384()},
	{tpm2.TPMECCNistP521, tpm2.TPMAlgSHA512, elliptic.P521(), ecdh.P521()},
}

func startCurves(t testing.TB, fast bool) *Engine {
	t.Helper()
	e, _ := newTPM(t)
	e.FastCurves(fast)
	t.Cleanup(func() { e.FastCurves(false) })
	run(t, e, cmdStartup)
	return e
}

// primary makes a primary key, which follows from the TPM's seed and the
// template alone, and gives its handle and public point.
func primary(t testing.TB, e *Engine, curve tpm2.TPMECCCurve, scheme tpm2.TPMTECCScheme, sign bool) (tpm2.NamedHandle, tpm2.TPMSECCPoint) {
	t.Helper()
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner,
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
				UserWithAuth: true, NoDA: true, SignEncrypt: sign, Decrypt: !sign},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve, Scheme: scheme}),
		}),
	}.Execute(tpmOf{e})
	if err != nil {
		t.Fatalf("CreatePrimary: %v", err)
	}
	t.Cleanup(func() { _, _ = tpm2.FlushContext{FlushHandle: rsp.ObjectHandle}.Execute(tpmOf{e}) })
	pub, err := rsp.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	point, err := pub.Unique.ECC()
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}, *point
}

func ecdsaScheme(hash tpm2.TPMAlgID) tpm2.TPMTECCScheme {
	return tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
		Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash})}
}

// The same TPM derives the same keys with and without the fast code, and what
// it signs is good to an independent verifier.
func TestFastCurvesSignLikeGeneric(t *testing.T) {
	e := startCurves(t, false)
	for i, c := range nistCurves {
		t.Run(c.ec.Params().Name, func(t *testing.T) {
			e.FastCurves(false)
			_, slow := primary(t, e, c.id, ecdsaScheme(c.hash), true)
			e.FastCurves(true)
			key, fast := primary(t, e, c.id, ecdsaScheme(c.hash), true)
			if !bytes.Equal(slow.X.Buffer, fast.X.Buffer) || !bytes.Equal(slow.Y.Buffer, fast.Y.Buffer) {
				t.Fatalf("derived keys differ: %x and %x", slow.X.Buffer, fast.X.Buffer)
			}
			if got := e.Curves()[i]; got != CurveFast {
				t.Fatalf("state of the curve = %d, want fast", got)
			}
			pub, err := ecdsa.ParseUncompressedPublicKey(c.ec, uncompressed(fast, c.ec))
			if err != nil {
				t.Fatalf("the TPM's key is not on the curve: %v", err)
			}
			for n := range 20 {
				e.FastCurves(n%4 != 3)
				checkSignature(t, e, key, pub, c.hash)
			}
		})
	}
}

func checkSignature(t *testing.T, e *Engine, key tpm2.NamedHandle, pub *ecdsa.PublicKey, hash tpm2.TPMAlgID) {
	t.Helper()
	alg, err := hash.Hash()
	if err != nil {
		t.Fatal(err)
	}
	digest := make([]byte, alg.Size())
	_, _ = rand.Read(digest)
	rsp, err := tpm2.Sign{
		KeyHandle:  key,
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(tpmOf{e})
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	sig, err := rsp.Signature.Signature.ECDSA()
	if err != nil {
		t.Fatal(err)
	}
	r, s := new(big.Int).SetBytes(sig.SignatureR.Buffer), new(big.Int).SetBytes(sig.SignatureS.Buffer)
	if !ecdsa.Verify(pub, digest, r, s) {
		t.Errorf("crypto/ecdsa refuses the signature of %x", digest)
	}
	digest[0] ^= 1
	if ecdsa.Verify(pub, digest, r, s) {
		t.Error("crypto/ecdsa accepts the signature for another digest")
	}
}

func TestFastCurvesAgreeOnECDH(t *testing.T) {
	e := startCurves(t, true)
	for _, c := range nistCurves {
		t.Run(c.ec.Params().Name, func(t *testing.T) {
			key, point := primary(t, e, c.id, tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull}, false)
			size := (c.ec.Params().BitSize + 7) / 8
			theirs, err := c.dh.NewPublicKey(uncompressed(point, c.ec))
			if err != nil {
				t.Fatalf("the TPM's key is not on the curve: %v", err)
			}
			mine, err := c.dh.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			raw := mine.PublicKey().Bytes()[1:]
			rsp, err := tpm2.ECDHZGen{KeyHandle: key, InPoint: tpm2.New2B(tpm2.TPMSECCPoint{
				X: tpm2.TPM2BECCParameter{Buffer: raw[:size]}, Y: tpm2.TPM2BECCParameter{Buffer: raw[size:]}})}.Execute(tpmOf{e})
			if err != nil {
				t.Fatalf("ECDH_ZGen: %v", err)
			}
			z, err := rsp.OutPoint.Contents()
			if err != nil {
				t.Fatal(err)
			}
			want, err := mine.ECDH(theirs)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(leftPad(z.X.Buffer, size), want) {
				t.Errorf("shared secret = %x, crypto/ecdh says %x", z.X.Buffer, want)
			}
		})
	}
}

// uncompressed is a point in the form of SEC 1, section 2.3.3.
func uncompressed(p tpm2.TPMSECCPoint, c elliptic.Curve) []byte {
	n := (c.Params().BitSize + 7) / 8
	return append(append([]byte{4}, leftPad(p.X.Buffer, n)...), leftPad(p.Y.Buffer, n)...)
}

func leftPad(b []byte, n int) []byte { return append(make([]byte, max(0, n-len(b))), b...) }

// A curve that is not exactly a NIST one must not get their code: BN-256 works
// as before.
func TestFastCurvesLeaveOthersAlone(t *testing.T) {
	e := startCurves(t, true)
	before := e.Curves()
	_, point := primary(t, e, tpm2.TPMECCBNP256, tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull}, false)
	e.FastCurves(false)
	_, generic := primary(t, e, tpm2.TPMECCBNP256, tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull}, false)
	if !bytes.Equal(point.X.Buffer, generic.X.Buffer) {
		t.Errorf("BN P-256 keys differ: %x and %x", point.X.Buffer, generic.X.Buffer)
	}
	if after := e.Curves(); after != before {
		t.Errorf("states changed from %v to %v", before, after)
	}
}

func BenchmarkSignP256(b *testing.B) {
	for _, fast := range []bool{false, true} {
		b.Run(fmt.Sprintf("fast=%v", fast), func(b *testing.B) {
			e := startCurves(b, fast)
			key, _ := primary(b, e, tpm2.TPMECCNistP256, ecdsaScheme(tpm2.TPMAlgSHA256), true)
			sign := tpm2.Sign{
				KeyHandle:  key,
				Digest:     tpm2.TPM2BDigest{Buffer: make([]byte, 32)},
				Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
			}
			for b.Loop() {
				if _, err := sign.Execute(tpmOf{e}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
