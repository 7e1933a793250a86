// SPDX-License-Identifier: Apache-2.0

package hostpcr

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"sync"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-tpm/tpm2"
)

// fake is a host's TPM as far as this package asks one, which can be made to lie.
type fake struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	pcrs [len(banks)][24][]byte
	used [len(banks)]bool

	retries int           // how often it wants a quote again
	most    int           // values that PCR_Read gives at once
	gate    chan struct{} // a quote waits for it, if there is one
	quoting chan struct{} // gets one when a quote begins, if there is one
	attest  func(*tpm2.TPMSAttest)
	after   func(n int) // after the PCRs were read for the n-th time

	mu            sync.Mutex
	reads, quotes int
}

// newFake is a TPM with the PCRs of a log, and no SHA-512 bank.
func newFake(t testing.TB, log []byte) *fake {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, key: key, most: 8, used: [len(banks)]bool{true, true, true}}
	for i, size := range []int{20, 32, 48, 64} {
		for pcr := range f.pcrs[i] {
			f.pcrs[i][pcr] = make([]byte, size)
		}
	}
	parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{AllowPadding: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, alg := range []register.HashAlg{register.HashSHA1, register.HashSHA256, register.HashSHA384} {
		for _, e := range parsed.Events(alg) {
			if e.Type != tcg.NoAction && len(e.Digest) > 0 {
				h := alg.CryptoHash().New()
				h.Write(f.pcrs[i][e.Index])
				h.Write(e.Digest)
				f.pcrs[i][e.Index] = h.Sum(nil)
			}
		}
	}
	return f
}

var be = binary.BigEndian

// Send implements transport.TPM.
func (f *fake) Send(cmd []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch be.Uint32(cmd[6:]) {
	case 0x17a:
		return f.capability(), nil
	case 0x17e:
		return f.read(cmd[10:]), nil
	case 0x158:
		return f.quote(cmd), nil
	}
	return response(0x8001, 0x143, nil), nil // TPM_RC_COMMAND_CODE
}

func response(tag uint16, rc uint32, params []byte) []byte {
	b := be.AppendUint16(nil, tag)
	if tag == 0x8002 {
		params = append(be.AppendUint32(nil, uint32(len(params))), params...)
		params = append(params, 0, 0, 1, 0, 0)
	}
	b = be.AppendUint32(b, uint32(10+len(params)))
	return append(be.AppendUint32(b, rc), params...)
}

func (f *fake) capability() []byte {
	b := append([]byte{0}, 0, 0, 0, 5, 0, 0, 0, byte(len(banks)))
	for i, k := range banks {
		bits := byte(0)
		if f.used[i] {
			bits = 0xff
		}
		b = append(be.AppendUint16(b, uint16(k.alg)), 3, bits, bits, bits)
	}
	return response(0x8001, 0, b)
}

// read answers PCR_Read of PCR 0-7 of one bank.
func (f *fake) read(params []byte) []byte {
	alg, bits := tpm2.TPMIAlgHash(be.Uint16(params[4:])), params[7]
	var got byte
	var values []byte
	n := 0
	for i, k := range banks {
		if k.alg != alg || !f.used[i] {
			continue
		}
		for pcr := range 8 {
			if v := f.pcrs[i][pcr]; bits&(1<<pcr) != 0 && n < f.most {
				got |= 1 << pcr
				values = append(be.AppendUint16(values, uint16(len(v))), v...)
				n++
			}
		}
	}
	f.reads++
	b := append(be.AppendUint32(nil, 1), 0, 0, 0, 1)
	b = append(be.AppendUint16(b, uint16(alg)), 3, got, 0, 0)
	b = append(be.AppendUint32(b, uint32(n)), values...)
	if f.after != nil {
		f.after(f.reads)
	}
	return response(0x8001, 0, b)
}

func (f *fake) quote(cmd []byte) []byte {
	if f.retries--; f.retries >= 0 {
		return response(0x8001, 0x922, nil) // TPM_RC_RETRY
	}
	f.quotes++
	if f.quoting != nil {
		f.quoting <- struct{}{}
	}
	if f.gate != nil {
		<-f.gate
	}
	p := cmd[14+4+be.Uint32(cmd[14:]):]
	n := be.Uint16(p)
	extra, rest := p[2:2+n], p[2+n+2:]
	sel, err := tpm2.Unmarshal[tpm2.TPMLPCRSelection](rest)
	if err != nil {
		f.t.Errorf("quote: %v", err)
	}
	h := sha256.New()
	for _, s := range sel.PCRSelections {
		for i, k := range banks {
			for pcr := range 8 {
				if k.alg == s.Hash {
					h.Write(f.pcrs[i][pcr])
				}
			}
		}
	}
	a := tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote, ExtraData: tpm2.TPM2BData{Buffer: extra},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote,
			&tpm2.TPMSQuoteInfo{PCRSelect: *sel, PCRDigest: tpm2.TPM2BDigest{Buffer: h.Sum(nil)}}),
	}
	if f.attest != nil {
		f.attest(&a)
	}
	attest := tpm2.Marshal(a)
	digest := sha256.Sum256(attest)
	r, s, err := ecdsa.Sign(rand.Reader, f.key, digest[:])
	if err != nil {
		f.t.Error(err)
	}
	sig := tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: r.Bytes()}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s.Bytes()},
	})}
	return response(0x8002, 0, append(tpm2.Marshal(tpm2.TPM2BData{Buffer: attest}), tpm2.Marshal(sig)...))
}

func testLog(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newHost(t testing.TB, f *fake, log []byte) *Host {
	t.Helper()
	h, err := New(Config{
		TPM: f, AK: AK{Handle: 0x81010020, Name: tpm2.TPM2BName{Buffer: []byte("\x00\x0bname")}, Public: &f.key.PublicKey},
		Log: func() ([]byte, error) { return log, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}
