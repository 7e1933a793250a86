// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"time"

	"hwvtpm/control/audit"
	"hwvtpm/control/ca"
	"hwvtpm/control/store"
)

// Config is what a Service works with. All of it is needed.
type Config struct {
	Authority     *ca.Authority
	Store         store.Store
	Journal       *audit.Journal
	Manufacturers *Manufacturers
	Now           func() time.Time

	// HostLife and VTPMLife are the lives of certificates; a host's TLS certificate
	// has that of its AIK. Shorter means that less depends on revocation lists,
	// and more renewals.
	HostLife, VTPMLife time.Duration
	// ChallengeLife is how long a TPM has to meet a challenge.
	ChallengeLife time.Duration
}

// DefaultConfig has the lives: 30 days for hosts, 7 for vTPMs, 5 minutes for
// challenges (a hardware TPM behind a busy resource manager needs seconds).
func DefaultConfig() Config {
	return Config{Now: time.Now, HostLife: 30 * 24 * time.Hour, VTPMLife: 7 * 24 * time.Hour, ChallengeLife: 5 * time.Minute}
}

// Service enrols. Its methods may be called from any goroutine.
type Service struct{ cfg Config }

// New makes a Service.
func New(cfg Config) *Service { return &Service{cfg} }

// Challenge is what a TPM has to do to enrol.
type Challenge struct {
	ID         string    `json:"id"`
	Expires    time.Time `json:"expires"`
	Credential           // opened by TPM2_ActivateCredential with the AK and the EK
}

// Result is what an enrolment gives.
type Result struct {
	Certificate *x509.Certificate   // of the AK
	TLS         *x509.Certificate   // of a host's TLS key, if it gave one
	Chain       []*x509.Certificate // of both, up to the root
}

// Bounds on challenges that wait. A machine's renewal can be begun by whoever has seen its
// certificate and the public half of its key, so none has them all: a host that enrols its
// machines has a quarter, and an address what many machines behind it need.
const (
	maxWaiting       = 1024
	maxWaitingOfHost = 256
	maxWaitingOfOne  = 32
)

// Begin gives a challenge for a request.
func (s *Service) Begin(ctx context.Context, r *Request, caller Caller) (*Challenge, error) {
	now := s.cfg.Now()
	c, err := s.read(r, caller, now)
	if err != nil {
		return nil, err
	}
	credential, secret, err := makeCredential(c.ek.Key, c.ak.Name)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(secret)
	clear(secret)
	c.ID, c.Secret, c.Expires = newID(), sum[:], now.Add(s.cfg.ChallengeLife).UTC()
	err = s.cfg.Store.Update(ctx, func(tx store.Tx) error {
		if err := authorise(tx, &c.Challenge, now); err != nil {
			return err
		}
		if err := makeRoom(tx, &c.Challenge, now); err != nil {
			return err
		}
		return store.Challenges.Put(tx, c.ID, c.Challenge)
	})
	if err != nil {
		return nil, s.refused(ctx, &c.Challenge, caller, err)
	}
	if err := s.record(ctx, "challenged", &c.Challenge, caller, nil); err != nil {
		return nil, err
	}
	return &Challenge{ID: c.ID, Expires: c.Expires, Credential: credential}, nil
}

func newID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// makeRoom drops challenges that nobody can meet any more, and says whether another may
// wait.
func makeRoom(tx store.Tx, next *store.Challenge, now time.Time) error {
	all, err := store.Challenges.All(tx)
	if err != nil {
		return err
	}
	waiting, ofOne := 0, 0
	for _, c := range all {
		if now.After(c.Expires) {
			if err := store.Challenges.Delete(tx, c.ID); err != nil {
				return err
			}
			continue
		}
		if waiting++; c.From == next.From {
			ofOne++
		}
	}
	most := maxWaitingOfOne
	if next.Caller != "" {
		most = maxWaitingOfHost
	}
	if waiting >= maxWaiting || ofOne >= most {
		return ErrBusy
	}
	return nil
}

// Finish certifies the key of a challenge for its secret. Right or wrong, the
// challenge is gone.
func (s *Service) Finish(ctx context.Context, id string, secret []byte, caller Caller) (*Result, error) {
	now := s.cfg.Now()
	c, err := s.take(ctx, id)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(secret)
	switch {
	case now.After(c.Expires):
		err = fmt.Errorf("%w: too late", ErrProof)
	case subtle.ConstantTimeCompare(sum[:], c.Secret) != 1:
		err = fmt.Errorf("%w: the secret is wrong", ErrProof)
	}
	if err != nil {
		return nil, s.refused(ctx, c, caller, err)
	}
	r, err := s.certify(ctx, c, now)
	if err != nil {
		return nil, s.refused(ctx, c, caller, err)
	}
	err = s.record(ctx, "issued", c, caller, map[string]string{"serial": SerialText(r.Certificate), "until": r.Certificate.NotAfter.Format(time.RFC3339)})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// take removes a challenge, for good, and gives it.
func (s *Service) take(ctx context.Context, id string) (*store.Challenge, error) {
	var c store.Challenge
	if len(id) != 32 {
		return nil, fmt.Errorf("%w: no challenge has this id", ErrProof)
	}
	err := s.cfg.Store.Update(ctx, func(tx store.Tx) (err error) {
		if c, err = store.Challenges.Get(tx, id); err != nil {
			return err
		}
		return store.Challenges.Delete(tx, id)
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: no challenge has this id, or it was used", ErrProof)
	}
	return &c, err
}

// refused writes down why a real TPM was turned away, and gives the reason.
func (s *Service) refused(ctx context.Context, c *store.Challenge, caller Caller, reason error) error {
	return errors.Join(reason, s.record(ctx, "refused", c, caller, map[string]string{"reason": reason.Error()}))
}

func (s *Service) record(ctx context.Context, event string, c *store.Challenge, caller Caller, detail map[string]string) error {
	d := map[string]string{"ek": c.EK, "ak": c.AK, "from": caller.Addr}
	if c.Token != "" {
		d["token"] = c.Token[:16]
	}
	maps.Copy(d, detail)
	return s.cfg.Journal.Record(ctx, audit.Event{Event: event, Actor: caller.Host, Kind: c.Kind, Name: c.Name, Detail: d})
}
