// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/control/audit"
	"hwvtpm/control/ca"
	"hwvtpm/control/controltest"
	"hwvtpm/control/enrol"
	"hwvtpm/control/store"
	"hwvtpm/control/store/bolt"
)

func TestMain(m *testing.M) { os.Exit(controltest.Main(m)) }

// bus is a transport that somebody listens to, and that can break.
type bus struct {
	tpm transport.TPM

	mu    sync.Mutex
	heard []byte
	sent  int
	fail  int                          // the command of this number fails; 0: none does
	lost  bool                         // it is its answer that is lost
	twist func(cmd, rsp []byte) []byte // changes answers, if it is there
}

var errBus = errors.New("bus broke")

// Send implements transport.TPM.
func (b *bus) Send(cmd []byte) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent++
	if b.sent == b.fail && !b.lost {
		return nil, errBus
	}
	rsp, err := b.tpm.Send(cmd)
	b.heard = append(append(b.heard, cmd...), rsp...)
	if b.sent == b.fail {
		return nil, errBus
	}
	if b.twist != nil && err == nil {
		rsp = b.twist(cmd, rsp)
	}
	return rsp, err
}

func code(cmd []byte) tpm2.TPMCC { return tpm2.TPMCC(binary.BigEndian.Uint32(cmd[6:])) }

// failure is an answer that has nothing but a code.
func failure(rc tpm2.TPMRC) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, uint32(rc))
}

// loaded counts objects and sessions in a TPM.
func loaded(t testing.TB, tpm transport.TPM) int {
	t.Helper()
	n := 0
	for _, first := range []tpm2.TPMHandle{0x02000000, 0x03000000, 0x80000000} {
		all, err := handles(&lane{tpm: tpm}, first, first|0xffffff)
		if err != nil {
			t.Fatal(err)
		}
		n += len(all)
	}
	return n
}

// rig is a host's TPM whose maker is there to certify its endorsement keys.
type rig struct {
	t     testing.TB
	tpm   *controltest.TPM
	bus   *bus
	dir   string
	maker *ca.Authority
}

// newRig is a TPM as it comes out of its maker's factory.
func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, tpm: controltest.StartSim(t), dir: filepath.Join(t.TempDir(), "host")}
	r.bus = &bus{tpm: r.tpm}
	keys := t.TempDir()
	r.maker = must(ca.Create(t.TempDir(), "maker", ca.FileKeys{Dir: keys}, time.Now()))(t)
	return r
}

// must gives v, and fails the test on an error.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (r *rig) open(opts Options) *Host {
	r.t.Helper()
	h := must(Open(r.bus, r.dir, opts))(r.t)
	r.t.Cleanup(func() { h.Close() })
	return h
}

// empty fails the test if something is loaded in the TPM.
func (r *rig) empty(when string) {
	r.t.Helper()
	if n := loaded(r.t, r.tpm); n != 0 {
		r.t.Errorf("%s: %d objects and sessions are left in the TPM", when, n)
	}
}

// ekCert is the maker's certificate for an endorsement key of a template.
func (r *rig) ekCert(template tpm2.TPMTPublic) []byte {
	r.t.Helper()
	ek := r.tpm.EK(template)
	defer r.tpm.Flush(ek)
	m := ca.Model{Manufacturer: "id:00001014", Model: "test", Version: "id:00000001", Family: "2.0", Revision: 164}
	t := must(ca.VTPMEK("tpm-1", m, ek.Crypto, ca.Validity{Now: time.Now(), Life: time.Hour}))(r.t)
	return must(r.maker.Root.Issue(t, ek.Crypto))(r.t).Raw
}

// define writes an NV index that its own empty authorization may read, or only the
// owner.
func (r *rig) define(index tpm2.TPMHandle, data []byte, authRead bool, owner []byte) {
	r.t.Helper()
	auth := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(owner)}
	public := tpm2.TPMSNVPublic{
		NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(data)),
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: authRead, NoDA: true, NT: tpm2.TPMNTOrdinary},
	}
	_, err := tpm2.NVDefineSpace{AuthHandle: auth, PublicInfo: tpm2.New2B(public)}.Execute(r.tpm)
	for at := 0; err == nil && at < len(data); at += nvChunk {
		var rsp *tpm2.NVReadPublicResponse
		if rsp, err = (tpm2.NVReadPublic{NVIndex: index}).Execute(r.tpm); err == nil {
			_, err = tpm2.NVWrite{
				AuthHandle: auth, NVIndex: tpm2.NamedHandle{Handle: index, Name: rsp.NVName}, Offset: uint16(at),
				Data: tpm2.TPM2BMaxNVBuffer{Buffer: data[at:min(at+nvChunk, len(data))]},
			}.Execute(r.tpm)
		}
	}
	if err != nil {
		r.t.Fatalf("NV index %#x: %v", index, err)
	}
}

// service is an authority that trusts the makers whose certificates are in a folder.
type service struct {
	*enrol.Service
	authority *ca.Authority
	cfg       enrol.Config
}

func newService(t testing.TB, makers string) *service {
	t.Helper()
	dir := t.TempDir()
	cfg := enrol.DefaultConfig()
	cfg.Authority = must(ca.Create(dir, "cloud", ca.FileKeys{Dir: dir}, time.Now()))(t)
	db := must(bolt.Open(filepath.Join(dir, "db")))(t)
	t.Cleanup(func() { db.Close() })
	cfg.Store = db
	cfg.Journal = must(audit.OpenJournal(t.Context(), filepath.Join(dir, "audit"), db, cfg.Now))(t)
	t.Cleanup(func() { cfg.Journal.Close() })
	cfg.Manufacturers = must(enrol.LoadManufacturers(makers))(t)
	return &service{enrol.New(cfg), cfg.Authority, cfg}
}

// enrol certifies a host's attestation key, as vtpm-control does.
func (s *service) enrol(t testing.TB, h *Host) *enrol.Result {
	t.Helper()
	token := rand.Text()
	err := s.cfg.Store.Update(t.Context(), func(tx store.Tx) error {
		return store.Tokens.Put(tx, enrol.TokenHash(token), store.Token{
			Hash: enrol.TokenHash(token), Kind: store.KindHost, Name: "host-1", Expires: time.Now().Add(time.Hour)})
	})
	if err != nil {
		t.Fatal(err)
	}
	req := &enrol.Request{Kind: store.KindHost, Name: "host-1", AKPublic: h.AKPublic()}
	if req.EKCertificate, req.EKChain, err = h.EKCertificate(); err != nil {
		t.Fatal(err)
	}
	who := enrol.Caller{Addr: "test", Token: token}
	c := must(s.Begin(t.Context(), req, who))(t)
	secret := must(h.Activate(c.Blob, c.Secret))(t)
	return must(s.Finish(t.Context(), c.ID, secret, who))(t)
}

// makers is a folder with the certificate of the rig's maker.
func (r *rig) makers() string {
	r.t.Helper()
	dir := r.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "maker.pem"), ca.PEM(r.maker.Root.Certificate), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return dir
}

// hostAIK is the certificate that an authority gives to a host's key.
func hostAIK(t testing.TB, h *Host) (*ca.Authority, *x509.Certificate) {
	t.Helper()
	a := must(ca.Create(t.TempDir(), "cloud", ca.FileKeys{Dir: t.TempDir()}, time.Now()))(t)
	template := must(ca.HostAIK("host-1", ca.Validity{Now: time.Now(), Life: time.Hour}))(t)
	return a, must(a.Attestation.Issue(template, h.Public()))(t)
}

// long makes the certificate of a template longer than a TPM hashes at once.
func long(template *x509.Certificate, size int) *x509.Certificate {
	template.DNSNames = nil
	for range size / 64 {
		template.DNSNames = append(template.DNSNames, string(bytes.Repeat([]byte("a"), 60))+".b")
	}
	template.SerialNumber = big.NewInt(1)
	return template
}

var bothTypes = map[string]KeyType{"ECC P-256": ECCP256, "RSA-2048": RSA2048}

// forgetHosts lets a host enrol again with another endorsement key.
func forgetHosts(tx store.Tx) error { return store.Hosts.Delete(tx, "host-1") }
