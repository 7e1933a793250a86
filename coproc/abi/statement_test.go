// SPDX-License-Identifier: Apache-2.0

package abi

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"testing"
)

// The golden bytes of statements and of the card's figures.
var (
	goldenStatementRequest = unhex(`
		0300 0000 00000000
		2021000000000000 0000000000000000 0000000000000000 000000000000003f`)
	goldenStatement = unhex(`
		68777674706d2d73 746174656d656e74  0100 0100 03000000 8877665544332211
		1011121314151617 18191a1b1c1d1e1f  0001020304050607 08090a0b0c0d0e0f
		2021000000000000 0000000000000000 0000000000000000 000000000000003f
		aabbcc  0200 ddee`)
	goldenEKBody = unhex(`
		0100000000000000 0200000000000000
		4041000000000000 0000000000000000 0000000000000000 000000000000005f
		02000000 00000000
		01000181 0400 000b 0102
		0a000181 0000`)
	goldenEraseBody = unhex(`
		0100000000000000 0200000000000000
		766d2d6100000000 0000000000000000 0000000000000000 0000000000000000
		0000000000000000 0000000000000000 0000000000000000 0000000000000000`)
	goldenCardCounters = unhex(`
		0100000000000000 0200000000000000 0300000000000000 0400000000000000
		0500000000000000 0600000000000000 0700000000000000 0800000000000000
		0900000000000000 0a00000000000000 0b00000000000000 0c00000000000000
		0000000000000000 0000000000000000 0000000000000000 0000000000000000`)
	goldenCardHealth = unhex(`
		01000000 02000000 03000000 04000000 05000000 06000000
		0700000000000000 0800000000000000 01000000 00000000
		2021000000000000 0000000000000000 0000000000000000 000000000000003f
		02090000 00000000
		4041000000000000 0000000000000000 0000000000000000 000000000000005f
		0900000000000000
		0000000000000000 0000000000000000 0000000000000000 0000000000000000`)
)

// signedStatement is a statement with its signature, for the codec.
type signedStatement struct {
	Statement
	Sig []byte
}

func parseSigned(b []byte) (signedStatement, error) {
	s, _, sig, err := ParseStatement(b)
	return signedStatement{s, sig}, err
}

func appendSigned(dst []byte, s *signedStatement) []byte {
	return AppendSignature(AppendStatement(dst, &s.Statement), s.Sig)
}

var statementCodecs = []codec{
	codecOf("statement request", goldenStatementRequest, StatementRequest{Type: StatementErase, Nonce: nonce32},
		ParseStatementRequest, AppendStatementRequest),
	codecOf("statement", goldenStatement,
		signedStatement{
			Statement: Statement{Type: StatementEK, Time: 0x1122334455667788, Serial: serial, Slot: id16, Nonce: nonce32,
				Body: []byte{0xaa, 0xbb, 0xcc}},
			Sig: []byte{0xdd, 0xee},
		}, parseSigned, appendSigned),
	codecOf("EK body", goldenEKBody,
		EKBody{Generation: 1, Epoch: 2, AccessKey: key32, EKs: []EK{
			{Handle: 0x81010001, Name: []byte{0, 0xb, 1, 2}}, {Handle: 0x8101000a, Name: []byte{}}}},
		ParseEKBody, AppendEKBody),
	codecOf("erase body", goldenEraseBody, EraseBody{Generation: 1, Epoch: 2, Name: "vm-a"},
		ParseEraseBody, AppendEraseBody),
	codecOf("card counters", goldenCardCounters,
		CardCounters{Creates: 1, Destroys: 2, Clones: 3, Adopts: 4, Opens: 5, Denied: 6, Parks: 7, Unparks: 8,
			Restarts: 9, Commands: 10, Saves: 11, SaveErrors: 12},
		ParseCardCounters, AppendCardCounters),
	codecOf("card health", goldenCardHealth,
		CardHealth{Slots: 1, Live: 2, Parked: 3, Locked: 4, Faulted: 5, Spares: 6, Epoch: 7, AnchorCounter: 8,
			KeyProtection: ProtectionTPM, RollbackProtection: ProtectionFile, Firmware: nonce32,
			EngineVersion: 0x902, AnchorDigest: key32, Uptime: 9},
		ParseCardHealth, AppendCardHealth),
}

func TestVerifyStatement(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := Statement{Type: StatementErase, Time: 1, Nonce: nonce32, Body: AppendEraseBody(nil, &EraseBody{Name: "x"})}
	signed := AppendStatement(nil, &s)
	digest := sha256.Sum256(signed)
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	b := AppendSignature(signed, sig)
	got, err := VerifyStatement(&key.PublicKey, b)
	if err != nil || got.Nonce != nonce32 || !bytes.Equal(got.Body, s.Body) {
		t.Errorf("VerifyStatement = %+v, %v, want %+v", got, err, s)
	}
	for i := range signed {
		bad := bytes.Clone(b)
		bad[i] ^= 0x80
		if _, err := VerifyStatement(&key.PublicKey, bad); !errors.Is(err, ErrSignature) && !errors.Is(err, ErrMalformed) {
			t.Errorf("statement with byte %d changed: %v, want an error", i, err)
		}
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyStatement(&other.PublicKey, b); !errors.Is(err, ErrSignature) {
		t.Errorf("statement of another card: %v, want ErrSignature", err)
	}
}

func TestStatementLimits(t *testing.T) {
	long := AppendSignature(AppendStatement(nil, &Statement{Body: make([]byte, MaxStatementBody+1)}), nil)
	if _, _, _, err := ParseStatement(long); !errors.Is(err, ErrMalformed) {
		t.Errorf("long body: %v, want ErrMalformed", err)
	}
	long = AppendSignature(AppendStatement(nil, &Statement{}), make([]byte, MaxSignature+1))
	if _, _, _, err := ParseStatement(long); !errors.Is(err, ErrMalformed) {
		t.Errorf("long signature: %v, want ErrMalformed", err)
	}
	many := AppendEKBody(nil, &EKBody{EKs: make([]EK, MaxEKs+1)})
	if _, err := ParseEKBody(many); !errors.Is(err, ErrMalformed) {
		t.Errorf("many endorsement keys: %v, want ErrMalformed", err)
	}
	name := AppendEKBody(nil, &EKBody{EKs: []EK{{Name: make([]byte, MaxEKName+1)}}})
	if _, err := ParseEKBody(name); !errors.Is(err, ErrMalformed) {
		t.Errorf("long name of a key: %v, want ErrMalformed", err)
	}
	full := make([]EK, MaxEKs)
	for i := range full {
		full[i].Name = make([]byte, MaxEKName)
	}
	if n := len(AppendEKBody(nil, &EKBody{EKs: full})); n > MaxStatementBody {
		t.Errorf("the longest EK body has %d bytes, more than a statement takes", n)
	}
}

func TestCardKey(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(der)
	pub, serial, err := ParseCardKey(der)
	if err != nil || !pub.Equal(&key.PublicKey) || !bytes.Equal(serial[:], digest[:16]) {
		t.Errorf("ParseCardKey = %v, %x, %v", pub, serial, err)
	}
	wrongCurve, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrongKind, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]any{"P-384": &wrongCurve.PublicKey, "Ed25519": wrongKind} {
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ParseCardKey(der); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s key: %v, want ErrMalformed", name, err)
		}
	}
	if _, _, err := ParseCardKey(der[:len(der)-1]); !errors.Is(err, ErrMalformed) {
		t.Errorf("cut key: %v, want ErrMalformed", err)
	}
}

func TestEKDigest(t *testing.T) {
	if EKDigest(nil) != [32]byte{} {
		t.Error("the digest of no keys is not zero")
	}
	eks := []EK{{Handle: 0x81010001, Name: []byte{0, 0xb, 1, 2}}, {Handle: 0x8101000a, Name: []byte{}}}
	if got, want := EKDigest(eks), sha256.Sum256(goldenEKBody[ekBodyHeader:]); got != want {
		t.Errorf("EKDigest = %x, want %x", got, want)
	}
}
