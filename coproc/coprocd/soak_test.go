// SPDX-License-Identifier: Apache-2.0

package coprocd

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/admin"
)

// soak is how much TestSoak does.
type soak struct {
	slots, clients int
	operations     int // by all clients together
	burst          int // operations on one slot before a client turns to another
	kills          int // of workers; a tenth as many of the daemon
}

// A virtual machine that keeps its TPM busy uses it about once a second; this is
// an hour of twenty.
var hour = soak{slots: 200, clients: 20, operations: 20 * 3600, burst: 60, kills: 30}

// TestSoak: many virtual machines use many slots of one card, of which few are
// live at a time, while workers and the daemon are killed. What one slot holds is
// never seen, changed or used through another, and nothing answered is lost.
func TestSoak(t *testing.T) {
	s := hour
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		s = soak{slots: 12, clients: 4, operations: 600, burst: 10, kills: 3}
		t.Logf("a short one; set HWVTPM_TEST_ROOT=1 for an hour's worth of operations")
	}
	d := startDaemon(t, "--max-live", "24", "--spares", "4")
	machines := s.boot(d)
	if t.Failed() {
		return
	}
	var left atomic.Int64
	left.Store(int64(s.operations))
	stop := make(chan struct{})
	var killer, wg sync.WaitGroup
	killer.Go(func() { s.kill(d, &left, stop) })
	mine := s.slots / s.clients
	for c := range s.clients {
		own, others := machines[c*mine:(c+1)*mine], machines[(c+1)*mine%s.slots]
		wg.Go(func() {
			for left.Load() > 0 && !t.Failed() {
				m := own[rand.IntN(len(own))]
				if err := m.use(s.burst, others, &left); err != nil {
					t.Errorf("slot %s: %v", m.name, err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	killer.Wait()
	for _, m := range machines {
		if err := m.check(); err != nil {
			t.Errorf("slot %s, at the end: %v", m.name, err)
		}
	}
	d.admin(func(ctx context.Context, c *admin.Client) error {
		n, err := c.Counters(ctx)
		t.Logf("since the daemon's last start: %+v", n)
		return err
	})
}

// boot makes the slots and starts a virtual machine on each.
func (s soak) boot(d *daemon) []*machine {
	machines := make([]*machine, s.slots)
	keys := make(map[string]ed25519.PrivateKey)
	for i := range machines {
		name := fmt.Sprintf("vm-%d", i)
		keys[name] = d.create(name)
		machines[i] = &machine{name: name}
	}
	cfg := configFor(d.t, d.socket, nil)
	cfg.Key = func(name string) (ed25519.PrivateKey, error) {
		return append(ed25519.PrivateKey(nil), keys[name]...), nil
	}
	card, err := Open(cfg)
	if err != nil {
		d.t.Fatalf("Open: %v", err)
	}
	d.t.Cleanup(func() { card.Close() })
	var wg sync.WaitGroup
	for c := range s.clients {
		wg.Go(func() {
			for i := c; i < len(machines); i += s.clients {
				if err := machines[i].boot(card); err != nil {
					d.t.Errorf("slot %s: %v", machines[i].name, err)
				}
			}
		})
	}
	wg.Wait()
	return machines
}

// kill kills workers, and now and then the daemon, spread over all operations.
func (s soak) kill(d *daemon, left *atomic.Int64, stop chan struct{}) {
	for n := 1; n <= s.kills; n++ {
		at := int64(s.operations) * int64(s.kills-n) / int64(s.kills)
		for left.Load() > at {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
		if n%10 == 0 {
			d.end(unix.SIGKILL)
			d.start()
			continue
		}
		d.killWorker(fmt.Sprintf("vm-%d", rand.IntN(s.slots)))
	}
}

// machine is a virtual machine as its TPM sees it, and what that has to hold.
type machine struct {
	name string
	slot coproc.Slot
	resp [coproc.MaxTransfer]byte

	parent, key tpm2.NamedHandle
	private     tpm2.TPM2BPrivate
	public      tpm2.TPM2BPublic
	verifies    *ecdsa.PublicKey
	index       tpm2.NamedHandle
	pcr         [sha256.Size]byte
	counter     uint64
}

// Send implements transport.TPM.
func (m *machine) Send(cmd []byte) ([]byte, error) {
	n, err := m.slot.Execute(context.Background(), coproc.Command{Bytes: cmd}, m.resp[:])
	return m.resp[:n], err
}

func password(h tpm2.NamedHandle) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: h.Handle, Name: h.Name, Auth: tpm2.PasswordAuth(nil)}
}

var owner = tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}

// boot starts the TPM and makes a signing key and a counter.
func (m *machine) boot(card *Card) (err error) {
	if m.slot, err = card.OpenSlot(context.Background(), m.name); err != nil {
		return err
	}
	if _, err = m.slot.PowerOn(context.Background(), coproc.RunID(fmt.Appendf(nil, "%-32s", m.name))); err != nil {
		return err
	}
	if _, err = (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(m); err != nil {
		return err
	}
	if err = m.makeKey(); err != nil {
		return fmt.Errorf("key: %w", err)
	}
	return m.makeCounter()
}

func (m *machine) makeKey() error {
	srk, err := tpm2.CreatePrimary{PrimaryHandle: owner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(m)
	if err != nil {
		return err
	}
	m.parent = tpm2.NamedHandle{Handle: srk.ObjectHandle, Name: srk.Name}
	made, err := tpm2.Create{ParentHandle: password(m.parent), InPublic: tpm2.New2B(tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: tpm2.TPMECCNistP256,
			Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
		}),
	})}.Execute(m)
	if err != nil {
		return err
	}
	m.private, m.public = made.OutPrivate, made.OutPublic
	if m.key, err = m.load(m); err != nil {
		return err
	}
	public, err := m.public.Contents()
	if err != nil {
		return err
	}
	point, err := public.Unique.ECC()
	if err != nil {
		return err
	}
	parms, err := public.Parameters.ECCDetail()
	if err != nil {
		return err
	}
	m.verifies, err = tpm2.ECDSAPub(parms, point)
	return err
}

// load loads the key of a machine into the TPM of m.
func (m *machine) load(of *machine) (tpm2.NamedHandle, error) {
	r, err := tpm2.Load{ParentHandle: password(m.parent), InPrivate: of.private, InPublic: of.public}.Execute(m)
	if err != nil {
		return tpm2.NamedHandle{}, err
	}
	return tpm2.NamedHandle{Handle: r.ObjectHandle, Name: r.Name}, nil
}

func (m *machine) makeCounter() error {
	const handle = 0x01500001
	_, err := tpm2.NVDefineSpace{AuthHandle: owner, PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
		NVIndex: handle, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8,
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NT: tpm2.TPMNTCounter, NoDA: true},
	})}.Execute(m)
	if err != nil {
		return fmt.Errorf("counter: %w", err)
	}
	public, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(handle)}.Execute(m)
	if err != nil {
		return fmt.Errorf("counter: %w", err)
	}
	m.index = tpm2.NamedHandle{Handle: handle, Name: public.NVName}
	if err := m.increment(); err != nil {
		return err
	}
	m.counter, err = m.readCounter()
	return err
}

func (m *machine) increment() error {
	// The name changes with the first increment: the index is written then.
	_, err := tpm2.NVIncrement{AuthHandle: owner, NVIndex: m.index}.Execute(m)
	if err != nil {
		return fmt.Errorf("increment: %w", err)
	}
	public, err := tpm2.NVReadPublic{NVIndex: m.index.Handle}.Execute(m)
	if err == nil {
		m.index.Name = public.NVName
	}
	return err
}

func (m *machine) readCounter() (n uint64, err error) {
	r, err := tpm2.NVRead{AuthHandle: owner, NVIndex: m.index, Size: 8}.Execute(m)
	if err != nil {
		return 0, fmt.Errorf("read counter: %w", err)
	}
	for _, b := range r.Data.Buffer {
		n = n<<8 | uint64(b)
	}
	return n, nil
}

// use does operations of all kinds, and checks each.
func (m *machine) use(burst int, other *machine, left *atomic.Int64) error {
	for range burst {
		if left.Add(-1) < 0 {
			break
		}
		var err error
		switch n := rand.IntN(100); {
		case n < 40:
			err = m.sign()
		case n < 75:
			err = m.extend()
		case n < 80:
			err = m.refuses(other)
		case n < 84:
			m.counter++
			err = m.increment()
		default:
			_, err = tpm2.GetRandom{BytesRequested: 32}.Execute(m)
		}
		if err != nil {
			return err
		}
	}
	return m.check()
}

// sign has the key sign something that nobody signed before.
func (m *machine) sign() error {
	digest := sha256.Sum256(fmt.Appendf(nil, "%s %d", m.name, rand.Uint64()))
	r, err := tpm2.Sign{
		KeyHandle:  password(m.key),
		Digest:     tpm2.TPM2BDigest{Buffer: digest[:]},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(m)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	sig, err := r.Signature.Signature.ECDSA()
	if err != nil {
		return err
	}
	if !ecdsa.Verify(m.verifies, digest[:], new(big.Int).SetBytes(sig.SignatureR.Buffer), new(big.Int).SetBytes(sig.SignatureS.Buffer)) {
		return errors.New("signed by another key")
	}
	return nil
}

func (m *machine) extend() error {
	event := sha256.Sum256(fmt.Appendf(nil, "%d", rand.Uint64()))
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: 10, Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: event[:]}}},
	}.Execute(m)
	m.pcr = sha256.Sum256(append(m.pcr[:], event[:]...))
	if err != nil {
		return fmt.Errorf("extend: %w", err)
	}
	return nil
}

// refuses wants this TPM not to load the key of another.
func (m *machine) refuses(other *machine) error {
	key, err := m.load(other)
	if err == nil {
		return fmt.Errorf("the key of %s was loaded, as %#x", other.name, key.Handle)
	}
	if !errors.Is(err, tpm2.TPMRCIntegrity) {
		return fmt.Errorf("the key of %s was refused with %w, not as of another TPM", other.name, err)
	}
	return nil
}

// check compares what the TPM holds with what it has to.
func (m *machine) check() error {
	counter, err := m.readCounter()
	if err != nil {
		return err
	}
	r, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(10),
	}}}}.Execute(m)
	if err != nil {
		return fmt.Errorf("read PCR: %w", err)
	}
	if counter != m.counter {
		return fmt.Errorf("counter is %d, want %d", counter, m.counter)
	}
	if got := r.PCRValues.Digests; len(got) != 1 || [sha256.Size]byte(got[0].Buffer) != m.pcr {
		return fmt.Errorf("PCR 10 is %x, want %x", got, m.pcr)
	}
	return m.sign()
}
