// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc/abi"
)

// realConfig is a card with the real engine.
func realConfig(t testing.TB) Config {
	cfg := fakeConfig(t)
	cfg.Engine = built.Path(t, "hwvtpm-engine")
	if os.Geteuid() == 0 {
		cfg.WorkerUID = 400000
	}
	return cfg
}

// Send makes a client a transport of go-tpm.
func (c *client) Send(cmd []byte) ([]byte, error) {
	done, err := c.call(abi.OpExecute, cmd)
	if err == nil && done.Status != abi.StatusOK {
		err = errors.New(done.Status.String())
	}
	return bytes.Clone(done.Payload), err
}

// startup powers a real TPM on.
func startup(t testing.TB, c *client) {
	t.Helper()
	if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(c); err != nil {
		t.Fatal(err)
	}
}

// signer is a key of a slot, which follows from its endorsement seed.
type signer struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
}

var signTemplate = tpm2.TPMTPublic{
	Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{SignEncrypt: true, FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Scheme: tpm2.TPMTECCScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		CurveID: tpm2.TPMECCNistP256,
	}),
}

func newSigner(c *client) (*signer, error) {
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(signTemplate)}.Execute(c)
	if err != nil {
		return nil, err
	}
	public, err := rsp.OutPublic.Contents()
	if err != nil {
		return nil, err
	}
	return &signer{rsp.ObjectHandle, rsp.Name, *public}, nil
}

func (s *signer) sign(c *client, message string) (*tpm2.TPMTSignature, error) {
	digest := sha256.Sum256([]byte(message))
	rsp, err := tpm2.Sign{
		KeyHandle:  tpm2.NamedHandle{Handle: s.handle, Name: s.name},
		Digest:     tpm2.TPM2BDigest{Buffer: digest[:]},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(c)
	if err != nil {
		return nil, err
	}
	return &rsp.Signature, nil
}

func (s *signer) verify(message string, sig *tpm2.TPMTSignature) error {
	parms, err := s.public.Parameters.ECCDetail()
	if err != nil {
		return err
	}
	point, err := s.public.Unique.ECC()
	if err != nil {
		return err
	}
	pub, err := tpm2.ECDSAPub(parms, point)
	if err != nil {
		return err
	}
	rs, err := sig.Signature.ECDSA()
	if err != nil {
		return err
	}
	digest := sha256.Sum256([]byte(message))
	if !ecdsa.Verify(pub, digest[:], new(big.Int).SetBytes(rs.SignatureR.Buffer), new(big.Int).SetBytes(rs.SignatureS.Buffer)) {
		return errors.New("signature is of another key")
	}
	return nil
}

func TestRealSlotParksAndComesBack(t *testing.T) {
	cfg := realConfig(t)
	r := openCard(t, cfg)
	info := r.create("a")
	c := r.open("a")
	startup(t, c)
	key, err := newSigner(c)
	must(t, err)
	for range 3 {
		must(t, r.on(abi.OpSlotPark, "a", nil))
		r.await("a", abi.LifeParked)
		sig, err := key.sign(c, "a message") // a transient key: the volatile state is there
		must(t, err)
		must(t, key.verify("a message", sig))
	}
	b, _, err := do(r.admin, abi.OpStatement, info.Number, abi.AppendStatementRequest(nil, &abi.StatementRequest{Type: abi.StatementEK}))
	must(t, err)
	st := verified(t, r, b)
	body, err := abi.ParseEKBody(st.Body)
	must(t, err)
	if len(body.EKs) != 1 {
		t.Fatalf("%d endorsement keys in the statement, want 1", len(body.EKs))
	}
	ek, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(body.EKs[0].Handle)}.Execute(c)
	must(t, err)
	if !bytes.Equal(ek.Name.Buffer, body.EKs[0].Name) {
		t.Errorf("EK in the slot is %x, in the statement %x", ek.Name.Buffer, body.EKs[0].Name)
	}
	t.Logf("resumes: %v", r.Stats().Resumes)
}

// Many slots, few workers: every key signs in its own slot and is what it was, no
// matter how often the slots change places.
func TestRealSlotsDoNotMix(t *testing.T) {
	slots, rounds := 200, 4
	if testing.Short() {
		slots = 20
	}
	cfg := realConfig(t)
	cfg.MaxLive, cfg.Spares = 8, 4
	r := openCard(t, cfg)
	clients, keys := make([]*client, slots), make([]*signer, slots)
	inParallel(t, slots, func(i int) error {
		name := fmt.Sprintf("slot-%d", i)
		if _, err := r.tryCreate2(name); err != nil {
			return fmt.Errorf("create: %w", err)
		}
		c, err := r.tryOpen(name)
		if err != nil {
			return err
		}
		clients[i] = c
		if err := c.powerOn(); err != nil {
			return err
		}
		if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(c); err != nil {
			return err
		}
		keys[i], err = newSigner(c)
		return err
	})
	if t.Failed() {
		return
	}
	for round := range rounds {
		inParallel(t, slots, func(i int) error {
			message := fmt.Sprint("round ", round, " slot ", i)
			sig, err := keys[i].sign(clients[i], message)
			if err != nil {
				return err
			}
			if err := keys[i].verify(message, sig); err != nil {
				return fmt.Errorf("signed by another key: %w", err)
			}
			if keys[(i+1)%slots].verify(message, sig) == nil {
				return errors.New("the next slot has the same key")
			}
			return nil
		})
	}
	st := r.Stats()
	if st.Counters.Restarts != 0 {
		t.Errorf("%d workers died", st.Counters.Restarts)
	}
	if live := st.Health.Live; int(live) > cfg.MaxLive {
		t.Errorf("%d slots are live, want at most %d", live, cfg.MaxLive)
	}
	t.Logf("%d slots: %+v", slots, st.Counters)
	t.Logf("resumes %v", st.Resumes)
	for _, c := range clients {
		c.close()
	}
}

// tryCreate2 is tryCreate in a session of its own, for callers in parallel.
func (r *rig) tryCreate2(name string) (abi.SlotInfo, error) {
	one := &rig{t: r.t, Card: r.Card, admin: r.NewSession(Principal{Admin: true, Name: "test"})}
	return one.tryCreate(name)
}

// inParallel runs f for 0 to n-1, 16 at a time.
func inParallel(t testing.TB, n int, f func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	next := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					t.Errorf("slot %d: %v", i, err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

func TestRealCloneHasAnotherIdentity(t *testing.T) {
	r := openCard(t, realConfig(t))
	source := r.create("source")
	req := request("clone")
	req.Flags = abi.CreateNewIdentity
	b, _, err := do(r.admin, abi.OpSlotClone, source.Number, abi.AppendSlotCreate(nil, req))
	must(t, err)
	clone, err := abi.ParseSlotInfo(b)
	must(t, err)
	if clone.EKNames == source.EKNames || clone.EKNames == [32]byte{} || clone.ID == source.ID {
		t.Errorf("clone %+v of %+v", clone, source)
	}
	c := r.open("clone")
	startup(t, c)
	if _, err := newSigner(c); err != nil {
		t.Error(err)
	}
}

func TestRealWorkerSeesNoFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: workers get user ids of their own")
	}
	r := openCard(t, realConfig(t))
	r.create("a")
	r.create("b")
	a, b := r.open("a"), r.open("b")
	defer a.close()
	defer b.close()
	uids := map[string]bool{}
	for _, name := range []string{"a", "b"} {
		proc := filepath.Join("/proc", fmt.Sprint(r.show(name).WorkerPID))
		status, err := os.ReadFile(filepath.Join(proc, "status"))
		must(t, err)
		limits, err := os.ReadFile(filepath.Join(proc, "limits"))
		must(t, err)
		if !regexp.MustCompile(`Max processes +64 +64 `).Match(limits) {
			t.Errorf("worker of %s can use up threads that others need:\n%s", name, limits)
		}
		for line := range bytes.Lines(status) {
			if bytes.HasPrefix(line, []byte("Uid:")) {
				uids[string(line)] = true
			}
			if bytes.HasPrefix(line, []byte("Groups:")) && len(bytes.TrimSpace(line[7:])) != 0 {
				t.Errorf("worker of %s has %s", name, line)
			}
		}
	}
	if len(uids) != 2 || uids["Uid:\t0\t0\t0\t0\n"] {
		t.Errorf("workers have user ids %v, want two that are not root's", uids)
	}
}
