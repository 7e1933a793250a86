// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/hashicorp/go-hclog"

	"hwvtpm/control/ca"
	"hwvtpm/vtpm/attest"
	"hwvtpm/vtpm/bootevidence/bootevidencetest"
	"hwvtpm/vtpm/door"
	"hwvtpm/vtpm/hostpcr"
)

// must gives v; what tests prepare does not fail.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// rig is a host with all that is around it, in a bubble of time: an authority, a TPM
// that is a key, a card that is a few.
type rig struct {
	testing.TB
	authority *fakeAuthority
	tpm       *fakeTPM
	pcrs      *fakePCRs
	card      *fakeCard
	cfg       Config
	log       *bytes.Buffer // of the manager, as synctest keeps goroutines apart
	m         *Manager
	stop      func()
}

// inBubble runs a test with a clock of its own.
func inBubble(t *testing.T, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer func() { r.stop() }()
		test(r)
	})
}

func newRig(t testing.TB) *rig {
	t.Helper()
	host := bootevidencetest.New(t, 0x10)
	r := &rig{TB: t, tpm: &fakeTPM{host}, pcrs: &fakePCRs{host: host}, card: newFakeCard(t), log: &bytes.Buffer{}, stop: func() {}}
	r.authority = newFakeAuthority(t, r.tpm)
	dir := t.TempDir()
	r.cfg = Config{
		Name: "host-1", Dir: filepath.Join(dir, "state"), TPM: r.tpm, PCRs: r.pcrs, Authority: r.authority,
		Card: r.card.connect, Roots: r.authority.ca.Roots(), Certificates: filepath.Join(dir, "certificates"),
		Logger: hclog.New(&hclog.LoggerOptions{Output: r.log, Level: hclog.Info}),
	}
	return r
}

// start starts a manager, and lets it come to rest.
func (r *rig) start() {
	r.Helper()
	m, err := New(r.cfg)
	if err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.Context())
	var wg sync.WaitGroup
	wg.Go(func() { m.Run(ctx) })
	r.m = m
	r.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	synctest.Wait()
}

// again ends the manager and starts another with the same state.
func (r *rig) again() {
	r.Helper()
	r.stop()
	r.start()
}

// pass lets time pass.
func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) problems(want ...string) {
	r.Helper()
	got := r.m.Status().Problems
	if len(got) != len(want) {
		r.Fatalf("problems %q, want %q", got, want)
	}
	for i := range want {
		if !bytes.Contains([]byte(got[i]), []byte(want[i])) {
			r.Errorf("problem %q, want %q", got[i], want[i])
		}
	}
}

// newKey gives a P-256 key.
func newKey(t testing.TB) *ecdsa.PrivateKey {
	return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

// fakeTPM is a host's TPM that is a key.
type fakeTPM struct{ *bootevidencetest.Host }

func (f *fakeTPM) EKCertificate() ([]byte, [][]byte, error) { return []byte("EK"), nil, nil }
func (f *fakeTPM) AKPublic() []byte                         { return []byte("AK") }
func (f *fakeTPM) Public() crypto.PublicKey                 { return f.Key.Public() }
func (f *fakeTPM) Signer() crypto.Signer                    { return f.Key }
func (f *fakeTPM) Activate(blob, secret []byte) ([]byte, error) {
	return bytes.Join([][]byte{blob, secret}, nil), nil
}

// fakePCRs are the PCRs of that TPM.
type fakePCRs struct {
	host *bootevidencetest.Host

	mu     sync.Mutex // guards what follows
	quotes int
	recent *hostpcr.Reading
	slow   time.Duration
	err    error
}

func (f *fakePCRs) ReadAlone(ctx context.Context, nonce []byte) (*hostpcr.Reading, error) {
	f.mu.Lock()
	f.quotes++
	slow, err := f.slow, f.err
	f.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	q, err := f.host.Quote(nonce)
	if err != nil {
		return nil, err
	}
	return &hostpcr.Reading{Begun: time.Now(), Values: f.host.PCRs, Quote: *q}, nil
}

func (f *fakePCRs) Recent(ctx context.Context, age time.Duration) (*hostpcr.Reading, error) {
	f.mu.Lock()
	r := f.recent
	f.mu.Unlock()
	if r != nil && time.Since(r.Begun) <= age {
		return r, nil
	}
	r, err := f.ReadAlone(ctx, make([]byte, 32))
	f.mu.Lock()
	f.recent = r
	f.mu.Unlock()
	return r, err
}

func (f *fakePCRs) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.quotes
}

func (f *fakePCRs) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

var nonce = bytes.Repeat([]byte{7}, 32)

// machine is a virtual machine: its PCRs, its attestation key, and its slot.
type machine struct {
	*bootevidencetest.Host
	name  string
	chain string
}

// newMachine gives a machine a slot, and an attestation key that the authority has
// certified beside the slot's endorsement key.
func (r *rig) newMachine(name string, first byte) *machine {
	r.Helper()
	s := r.card.add(name)
	return r.beside(name, first, s)
}

// beside makes a machine whose attestation key was proven beside a slot's EK.
func (r *rig) beside(name string, first byte, s *fakeSlot) *machine {
	r.Helper()
	m := &machine{Host: bootevidencetest.New(r, first), name: name}
	cert := r.authority.vtpmAIK(name, m.Key.Public(), s.ek.Public())
	m.chain = string(ca.PEM(cert, r.authority.ca.Attestation.Certificate))
	return m
}

// layer is the machine's own part of evidence.
func (m *machine) layer(t testing.TB, nonce []byte) *attest.Machine {
	t.Helper()
	q := must(m.Quote(nonce))
	l := hostLayer(&hostpcr.Reading{Values: m.PCRs, Quote: *q})
	return &attest.Machine{Chain: m.chain, Layer: *l}
}

func request(t testing.TB, nonce []byte, m *attest.Machine) *door.EvidenceRequest {
	t.Helper()
	return &door.EvidenceRequest{Nonce: nonce, VM: must(json.Marshal(m))}
}

// ask asks for a machine's evidence on a channel of a machine.
func (r *rig) ask(channel string, req *door.EvidenceRequest) (*attest.Evidence, error) {
	return r.m.Evidence(r.Context(), door.Caller{VM: channel, UID: -1}, req)
}

// holds verifies evidence, and gives the result.
func (r *rig) holds(ev *attest.Evidence) *attest.Result {
	r.Helper()
	text := must(ev.Marshal())
	parsed := must(attest.Parse(text))
	v := &attest.Verifier{Roots: r.authority.ca.Roots(), Now: time.Now(), Policy: &attest.Policy{
		Version: attest.Version, Modes: []attest.Mode{attest.ModeMap, attest.ModeEvidence, attest.ModeOff}, SameBoot: true,
	}}
	res := must(v.Verify(parsed, nonce))
	if !res.OK {
		for _, c := range res.Claims {
			r.Logf("%s %s: %s", c.State, c.Name, c.Reason)
		}
		r.Error("the evidence does not hold")
	}
	return res
}

// spki is the DER of a public key.
func spki(t testing.TB, key crypto.PublicKey) []byte {
	return must(x509.MarshalPKIXPublicKey(key))
}

// ekPublic is the TPMT_PUBLIC of an endorsement key.
func ekPublic(key *ecdsa.PublicKey) []byte {
	t, point := tpm2.ECCEKTemplate, must(key.Bytes()) // 4, X, Y
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
	})
	return tpm2.Marshal(&t)
}

func ekName(public []byte) []byte {
	t, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil
	}
	name, err := tpm2.ObjectName(t)
	if err != nil {
		return nil
	}
	return name.Buffer
}

// there says whether a file is there.
func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

var errTest = errors.New("test failure")

// handle is where slots have their endorsement key.
const handle = 0x8101000a
