// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/internal/shares"
)

// Manager is the management module of one host. See the package's documentation for
// who may call what.
type Manager struct {
	cfg Config
	log hclog.Logger
	key crypto.Signer // of TLS

	spent  string    // a token that was shown; keepIdentity's alone
	looked time.Time // when, for a revocation; keepIdentity's alone
	unkept *identity // that is not on disk; keepIdentity's alone

	// These are keepCard's alone.
	bond      *bond              // of the card that was certified last
	told      []string           // to Config.Slots
	written   map[string]written // machines' files, by name
	writtenBy *bond
	hostFiles error // why those of host and card are not written

	authority *counted
	quoter    *quoter
	asked     *tally // operations
	boots     *boots

	renewed  chan struct{}  // holds one token when there is a new identity
	doubted  chan struct{}  // holds one token when the authority was found to have revoked
	checks   chan struct{}  // holds one token for each check of a machine's quote
	requests *shares.Shares // of guests
	quotes   *shares.Shares // of the host's quotes
	enrols   *shares.Shares // of questions to the authority
	waiting  *enrolments

	mu       sync.Mutex // guards what follows
	id       *identity  // nil: none
	revoked  bool       // the authority has taken the identity back
	link     *link      // nil: the card is not reached
	slots    map[string]*slot
	aiks     map[string]string   // machines' AIK certificates that were seen last, PEM
	problems [problemKinds]error // by what they are of
}

// What problems are of.
const (
	problemIdentity = iota // the host's own certificates
	problemCard
	problemSlots // a slot without certificates
	problemPCRs
	problemFiles // certificates that cannot be written out
	problemKinds
)

// A machine may enrol so many times in a row, and then once in each period: the
// authority counts them for the host. It may ask for anything so many times.
const (
	enrolBurst   = 4
	enrolEvery   = 15 * time.Second
	requestBurst = 64
	requestEvery = 100 * time.Millisecond
)

// New makes a Manager. It makes the state folder and the TLS key, and reads what was
// kept; nothing is asked of TPM, card or authority yet.
func New(cfg Config) (*Manager, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("manager: state: %w", err)
	}
	m := &Manager{
		cfg: cfg, log: cfg.Logger, authority: newCounted(cfg.Authority), quoter: newQuoter(cfg.PCRs),
		asked: newTally("door", "operation", "result"), boots: newBoots(&cfg), renewed: make(chan struct{}, 1), doubted: make(chan struct{}, 1),
		checks:   make(chan struct{}, max(1, runtime.NumCPU()/2)),
		requests: shares.New(requestBurst, requestEvery), quotes: shares.New(cfg.Burst, cfg.Every),
		enrols: shares.New(enrolBurst, enrolEvery), waiting: newEnrolments(),
		slots: map[string]*slot{}, aiks: map[string]string{},
	}
	var err error
	if m.key, err = m.tlsKey(); err != nil {
		return nil, fmt.Errorf("manager: %w", err)
	}
	id, err := m.load()
	if err != nil {
		m.log.Info("the host needs the authority before it can vouch for anything", "because", err)
		m.problems[problemIdentity] = err
		return m, nil
	}
	m.setIdentity(id)
	return m, nil
}

// Run does what is done in the background: it keeps the host enrolled, the card
// certified and its slots known. It returns when ctx ends.
func (m *Manager) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { m.keepIdentity(ctx) })
	wg.Go(func() { m.keepCard(ctx) })
	wg.Wait()
}

func (m *Manager) identity() *identity {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.id
}

// setIdentity takes an identity, and has the card certified by it.
func (m *Manager) setIdentity(id *identity) {
	m.mu.Lock()
	m.id, m.revoked = id, false
	m.mu.Unlock()
	m.log.Info("the authority's certificate for this host", "host", m.cfg.Name, "serial", id.aik.SerialNumber.Text(16),
		"until", id.ends(), "renewal", id.renewal().UTC().Format(time.RFC3339))
	select {
	case m.renewed <- struct{}{}:
	default: // it will be seen
	}
}

// setProblem notes what is wrong with one thing, or that it is right again.
func (m *Manager) setProblem(kind int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.problems[kind] = err
}

// sleep waits for a time, for a word that comes early, or for the end of ctx.
func (m *Manager) sleep(ctx context.Context, d time.Duration, early <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-early:
	case <-ctx.Done():
	}
}
