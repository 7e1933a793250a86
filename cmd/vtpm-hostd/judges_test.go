// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-attestation/attest"

	"hwvtpm/coproc/abi/ekcert/ekcerttest"
	"hwvtpm/vtpm/door"
)

// readEKs reads what a TPM has of its endorsement keys, by two tools, and has openssl
// verify it. The certificates of the issuers come one after the other.
const readEKs = `
for index in 0x01c00002 0x01c0000a; do tpm2_nvread -Q $index -o $index.der; done
tpm2_getekcertificate -o rsa.der -o ecc.der
cmp rsa.der 0x01c00002.der
cmp ecc.der 0x01c0000a.der
tpm2_nvread -Q 0x01c00100 -o chain.der
cp chain.der rest.der
while openssl x509 -inform DER -in rest.der -outform DER -out one.der 2>/dev/null; do
    openssl x509 -inform DER -in one.der >>chain.pem
    tail -c +$(($(stat -c %s one.der) + 1)) rest.der >next.der
    mv next.der rest.der
done
test ! -s rest.der
for key in rsa ecc; do
    openssl x509 -inform DER -in $key.der -out $key.pem
    openssl verify -ignore_critical -CAfile $ROOT -untrusted chain.pem $key.pem
done
`

// TestJudgesOfEKs: what a card writes into a vTPM, certified by its host and an authority,
// is read by tpm2-tools and go-attestation as any TPM's, and stands before openssl and
// keylime's rules.
func TestJudgesOfEKs(t *testing.T) {
	s := newSite(t)
	ekcerttest.NeedKeylime(t)
	s.startHost()
	s.healthy()
	if out, err := s.vtpmctl("slot", "create", "vm", "--keys", "rsa,p256,srk", "--key-dir", s.path("keys")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	operator := s.door("hostd.sock")
	until(t, "certificates of vm", func() bool {
		var vm door.VM
		err := operator.Call(t.Context(), door.OpVM, door.VMRequest{Name: "vm"}, &vm)
		return err == nil && len(vm.EKs) == 2 && !slices.ContainsFunc(vm.EKs, func(ek door.EK) bool { return len(ek.Chain) == 0 })
	})
	dir := t.TempDir()
	tools := exec.Command("bash", "-euo", "pipefail", "-c", readEKs)
	tools.Dir = dir
	tools.Env = append(os.Environ(), "TPM2TOOLS_TCTI=cmd:"+s.raw().String(), "ROOT="+s.path("control", "ca", "root.pem"))
	if out, err := tools.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	read := func(name string) []byte {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	rsa, ecc := read("rsa.der"), read("ecc.der")
	keylimeTakes(t, [][]byte{rsa, ecc}, read("chain.der"))
	s.goAttestationTakes(rsa, ecc)
}

// vtpmctl is a command to the card.
func (s *site) vtpmctl(args ...string) *exec.Cmd {
	return exec.Command(built.Path(s.t, "vtpmctl"), append([]string{"--socket", s.path("card.sock")}, args...)...)
}

// raw is the TPM of the machine vm behind pipes.
func (s *site) raw() *exec.Cmd {
	return s.vtpmctl("raw", "--slot", "vm", "--key-dir", s.path("keys"))
}

// keylimeTakes: the card vouches for its EKs, and nobody above it does.
func keylimeTakes(t *testing.T, eks [][]byte, chain []byte) {
	t.Helper()
	issuers, err := x509.ParseCertificates(chain)
	if err != nil || len(issuers) != 3 {
		t.Fatalf("%d issuers, %v", len(issuers), err)
	}
	store := map[string]*x509.Certificate{"card": issuers[0], "host": issuers[1], "attestation": issuers[2]}
	for n, ek := range eks {
		if by, err := ekcerttest.Keylime(t, ek, store); by != "card" {
			t.Errorf("certificate %d: by keylime's rules vouched for by %q (%v), want card", n, by, err)
		}
	}
	delete(store, "card")
	if by, err := ekcerttest.Keylime(t, eks[0], store); err == nil {
		t.Errorf("without the card's certificate, %s vouches for an EK", by)
	}
}

// channel is a TPM behind a program's pipes, for go-attestation. A response is one write,
// and so one read.
type channel struct {
	io.WriteCloser
	io.Reader
}

// MeasurementLog implements attest.CommandChannelTPM20: there is none.
func (channel) MeasurementLog() ([]byte, error) { return nil, nil }

// goAttestationTakes: go-attestation finds the certificates and the key of one, to which
// it then has an AK proved. It knows P-256 EKs at another handle only.
func (s *site) goAttestationTakes(rsa, ecc []byte) {
	s.t.Helper()
	raw := s.raw()
	in, inErr := raw.StdinPipe()
	out, outErr := raw.StdoutPipe()
	raw.Stderr = s.t.Output()
	if err := errors.Join(inErr, outErr, raw.Start()); err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(in.Close(), raw.Wait()); err != nil {
			s.t.Error(err)
		}
	}()
	tpm, err := attest.OpenTPM(&attest.OpenConfig{CommandChannel: channel{in, out}})
	if err != nil {
		s.t.Fatal(err)
	}
	eks, err := tpm.EKCertificates()
	if err != nil || len(eks) == 0 || !bytes.Equal(eks[0].Certificate.Raw, rsa) {
		s.t.Fatalf("go-attestation finds %d certificates, %v", len(eks), err)
	}
	if c, err := attest.ParseEKCertificate(ecc); err != nil || !bytes.Equal(c.Raw, ecc) {
		s.t.Errorf("go-attestation reads the P-256 EK's certificate: %v", err)
	}
	ak, err := tpm.NewAK(&attest.AKConfig{Algorithm: attest.ECDSA})
	if err != nil {
		s.t.Fatal(err)
	}
	want, credential, err := (&attest.ActivationParameters{EK: eks[0].Public, AK: ak.AttestationParameters()}).Generate()
	if err != nil {
		s.t.Fatal(err)
	}
	if got, err := ak.ActivateCredentialWithEK(tpm, *credential, eks[0]); err != nil || !bytes.Equal(got, want) {
		s.t.Errorf("activation by the certified key: %v", err)
	}
	if err := ak.Close(tpm); err != nil {
		s.t.Error(err)
	}
}
