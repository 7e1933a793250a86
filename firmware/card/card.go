// SPDX-License-Identifier: Apache-2.0

package card

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/card/store"
	"hwvtpm/firmware/card/worker"
	"hwvtpm/firmware/sealed"
	"hwvtpm/firmware/wire"
)

// Bounds of what is waited for. Making a TPM makes RSA keys, on a host that may
// be busy.
const (
	readyTimeout = 30 * time.Second
	makeTimeout  = 5 * time.Minute
	closeGrace   = 5 * time.Second
)

var errClosed = fmt.Errorf("card: %w", fs.ErrClosed)

// Card is an open card. It is safe for concurrent use.
type Card struct {
	cfg      Config
	log      hclog.Logger
	store    *store.Store
	pool     *worker.Pool
	watch    *watcher
	boot     [16]byte // of the machine
	key      []byte   // public part of the identity, SubjectPublicKeyInfo
	serial   [16]byte
	measured [32]byte
	opened   time.Time

	readyTimeout time.Duration
	waits        waits

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // runs and housekeeping

	door    chan struct{} // who waits for room
	room    chan struct{} // some may have become free
	workers atomic.Int64  // that have room

	chainMu  sync.Mutex // guards what follows; held while it is written
	chain    *chain     // of the card's key; nil if there is none
	chainErr error      // why not

	counters counters
	denials  limiter
	failures limiter
	unsaved  limiter
	totals   totals

	mu       sync.Mutex // guards what follows
	byNumber map[uint32]*slot
	byName   map[string]*slot
	closing  bool
	closed   chan struct{} // closed when Close is done
	closeErr error
}

// Open opens a card, and makes a new one if its directory is missing or empty.
// Everything that is not whole, not current, or not ours is an error.
func Open(cfg Config) (*Card, error) {
	return open(cfg, func(sc store.Config) (*store.Store, []sealed.Adoption, error) {
		s, err := store.Open(sc)
		return s, nil, err
	})
}

// Adopt opens a card whose store was restored from a backup, or has lost its
// anchor. It is an operator's explicit act, and is logged. Slots that are older
// than the store's own record says are adopted one by one, by OpSlotAdopt.
func Adopt(cfg Config, reason string) (*Card, error) {
	return open(cfg, func(sc store.Config) (*store.Store, []sealed.Adoption, error) {
		return store.Adopt(sc, reason)
	})
}

func open(cfg Config, get func(store.Config) (*store.Store, []sealed.Adoption, error)) (*Card, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	c := &Card{
		cfg: cfg, log: cfg.Logger, opened: time.Now(), readyTimeout: readyTimeout, waits: defaultWaits,
		door: make(chan struct{}, 1), room: make(chan struct{}, 1),
		byNumber: map[uint32]*slot{}, byName: map[string]*slot{},
	}
	var err error
	if c.boot, err = wire.BootID(); err != nil {
		return nil, err
	}
	if c.measured, err = measure(cfg.Engine); err != nil {
		return nil, err
	}
	s, adoptions, err := get(store.Config{Dir: cfg.Dir, Protection: cfg.Protection, Interval: cfg.AnchorInterval})
	if err != nil {
		return nil, err
	}
	c.store = s
	if err := c.run(); err != nil {
		s.Close()
		return nil, err
	}
	c.greet(adoptions)
	return c, nil
}

// run starts what a card with a store does.
func (c *Card) run() error {
	var err error
	if c.key, err = x509.MarshalPKIXPublicKey(c.store.Identity().Public()); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	c.serial = abi.SerialOf(c.key)
	c.loadChain()
	if c.watch, err = newWatcher(); err != nil {
		return err
	}
	for _, r := range c.store.Records() {
		c.insert(newSlot(c, r))
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.pool = worker.NewPool(worker.Config{
		Engine: c.cfg.Engine, Spares: c.cfg.Spares, UID: c.cfg.WorkerUID, UIDs: c.cfg.UIDs(),
		Logger: c.log.Named("worker"),
	})
	c.wg.Go(c.keepAnchored)
	c.wg.Go(c.parkIdle)
	return nil
}

// greet logs what an operator should know of the store.
func (c *Card) greet(adoptions []sealed.Adoption) {
	what := "card opened"
	if c.store.Fresh() {
		what = "new card made"
	}
	c.log.Info(what, "serial", hex.EncodeToString(c.serial[:]), "slots", len(c.byNumber),
		"epoch", c.store.Epoch(), "protection", c.cfg.Protection.String())
	for _, d := range adoptions {
		c.log.Warn("store adopted", "adoption", d.String())
	}
	for _, path := range c.store.Strays() {
		c.log.Warn("directory of no slot: a creation or removal was cut short, or the table lost it; it is left alone", "dir", path)
	}
}

// keepAnchored advances the anchor, until the card is closed.
func (c *Card) keepAnchored() {
	tick := time.NewTicker(250 * time.Millisecond) // Tick has its own idea of how often
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-c.ctx.Done():
			return
		case now := <-tick.C:
			err := c.store.Tick(now)
			if err != nil && !failed {
				c.log.Error("the anchor does not advance: what is saved from now on can be set back", "err", err)
			}
			failed = err != nil
		}
	}
}

// begin starts a goroutine of the card, unless it is closing.
func (c *Card) begin(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	c.wg.Go(f)
	return true
}

func (c *Card) insert(s *slot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byNumber[s.rec.Number] = s
	c.byName[s.rec.Name] = s
}

// forget drops a slot. Name and number may be another's by now.
func (c *Card) forget(s *slot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byNumber[s.rec.Number] == s {
		delete(c.byNumber, s.rec.Number)
	}
	if c.byName[s.rec.Name] == s {
		delete(c.byName, s.rec.Name)
	}
}

// all are the slots, ascending by number.
func (c *Card) all() []*slot {
	c.mu.Lock()
	list := make([]*slot, 0, len(c.byNumber))
	for _, s := range c.byNumber {
		list = append(list, s)
	}
	c.mu.Unlock()
	slices.SortFunc(list, func(a, b *slot) int { return cmp.Compare(a.rec.Number, b.rec.Number) })
	return list
}

func (c *Card) numbered(n uint32) (*slot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.byNumber[n]; s != nil {
		return s, nil
	}
	return nil, refuse(abi.StatusNoSlot, "no slot %d", n)
}

func (c *Card) named(name string) (*slot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.byName[name]; s != nil {
		return s, nil
	}
	return nil, refuse(abi.StatusNoSlot, "no slot of this name")
}

func (c *Card) curves() wire.SetupFlags {
	if c.cfg.GenericCurves {
		return wire.GenericCurves
	}
	return 0
}

// Close lets workers finish what they have read, ends them, and anchors what was
// saved. Clients see the end of their slots, and may come back to the next process
// that opens the card. Its error says that what was saved last can be set back. It
// may be called again, and from any goroutine.
func (c *Card) Close() error {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		<-c.closed
		return c.closeErr
	}
	c.closing, c.closed = true, make(chan struct{})
	c.mu.Unlock()
	c.cancel()
	c.watch.close()
	ended := make(chan struct{})
	go func() {
		c.wg.Wait()
		close(ended)
	}()
	c.endAll((*slot).dismiss)
	select {
	case <-ended:
	case <-time.After(closeGrace):
		c.endAll((*slot).kill)
		<-ended
	}
	c.pool.Close()
	c.closeErr = c.store.Close()
	close(c.closed)
	return c.closeErr
}

func (c *Card) endAll(end func(*slot)) {
	for _, s := range c.all() {
		end(s)
	}
}

// dismiss ends the slot in order, as the card closes.
func (s *slot) dismiss() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.phase {
	case parked:
		s.hangUp()
	case live:
		s.tellToExit()
	case closed, opening, parking, busy:
	}
}
