// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Config describes a pool.
type Config struct {
	Engine string // program, an absolute path
	Spares int    // how many to keep

	// UID is the first of UIDs user and group ids that are for workers only.
	// Negative: workers have the card's own. It takes root.
	UID, UIDs int

	Logger hclog.Logger
}

// Pool has spare workers. It is safe for concurrent use.
type Pool struct {
	cfg  Config
	kick chan struct{} // a spare is missing
	done chan struct{}
	wg   sync.WaitGroup

	reported atomic.Bool // one worker was told to say what its host withholds: so it is for all

	mu     sync.Mutex // guards what follows
	free   []int      // user ids of nobody
	spares []*Process // the oldest first
	closed bool
}

// Bounds of the wait after a spare could not be started, or died.
const (
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 10 * time.Second
)

// ErrNoUID: more workers live than there are user ids for them.
var ErrNoUID = errors.New("no user id is left for a worker")

// NewPool makes a pool, which fills itself in the background.
func NewPool(cfg Config) *Pool {
	p := &Pool{cfg: cfg, kick: make(chan struct{}, 1), done: make(chan struct{})}
	if cfg.UID >= 0 {
		for i := range cfg.UIDs {
			p.free = append(p.free, cfg.UID+i)
		}
	}
	p.wg.Go(p.fill)
	return p
}

// Get gives a worker that was told nothing yet.
func (p *Pool) Get() (*Process, error) {
	p.mu.Lock()
	for len(p.spares) > 0 && !p.closed {
		w := p.spares[0]
		p.spares = p.spares[1:]
		select {
		case <-w.exited:
			continue // it died and its watcher has not noticed yet
		default:
		}
		p.mu.Unlock()
		p.wake()
		return w, nil
	}
	p.mu.Unlock()
	return p.start()
}

// start starts a worker. Its user id is free again when it has ended.
func (p *Pool) start() (*Process, error) {
	uid, err := p.takeUID()
	if err != nil {
		return nil, err
	}
	w, err := start(p.cfg.Engine, uid, !p.reported.Swap(true), p.cfg.Logger)
	if err != nil {
		p.putUID(uid)
		return nil, err
	}
	go func() {
		<-w.exited
		p.putUID(uid)
	}()
	return w, nil
}

// takeUID announces a worker to Close and gives it its user id.
func (p *Pool) takeUID() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return 0, fmt.Errorf("workers: %w", fs.ErrClosed)
	case p.cfg.UID >= 0 && len(p.free) == 0:
		return 0, ErrNoUID
	}
	p.wg.Add(1)
	if p.cfg.UID < 0 {
		return -1, nil
	}
	uid := p.free[0] // the one that is free for longest
	p.free = p.free[1:]
	return uid, nil
}

// putUID takes back what takeUID gave.
func (p *Pool) putUID(uid int) {
	defer p.wg.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	if uid >= 0 {
		p.free = append(p.free, uid)
	}
}

// Spares is how many workers wait for a slot.
func (p *Pool) Spares() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.spares)
}

func (p *Pool) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// fill keeps the number of spares. One that cannot be started, or that dies
// before it is used, slows it down: the reason will be the same the next time.
func (p *Pool) fill() {
	backoff := firstBackoff
	for {
		err := p.addSpares()
		wait := time.Duration(0)
		if err != nil {
			p.cfg.Logger.Error("cannot keep spare workers", "err", err, "again in", backoff)
			wait, backoff = backoff, min(2*backoff, lastBackoff)
		} else {
			backoff = firstBackoff
		}
		if !p.pause(wait, err == nil) {
			return
		}
	}
}

// pause waits for a time, and, if nothing failed, for a kick. It says whether
// the pool is open still.
func (p *Pool) pause(d time.Duration, kicked bool) bool {
	kick := p.kick
	var timer <-chan time.Time
	if !kicked {
		kick, timer = nil, time.After(d)
	}
	select {
	case <-p.done:
		return false
	case <-kick:
	case <-timer:
	}
	return true
}

var errDied = errors.New("a spare worker died")

func (p *Pool) addSpares() error {
	if p.bury() {
		return errDied
	}
	for p.Spares() < p.cfg.Spares {
		w, err := p.start()
		if errors.Is(err, fs.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		p.keep(w)
	}
	return nil
}

// keep adds a spare.
func (p *Pool) keep(w *Process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		w.Kill()
		return
	}
	p.spares = append(p.spares, w)
	p.wg.Go(func() {
		<-w.exited
		p.wake() // whether it is a spare still, bury looks
	})
}

// bury drops the spares that died, and says whether there were any.
func (p *Pool) bury() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var alive []*Process
	for _, w := range p.spares {
		select {
		case <-w.exited:
		default:
			alive = append(alive, w)
		}
	}
	died := len(alive) < len(p.spares)
	p.spares = alive
	return died
}

// Close ends the spares, and waits for all workers of the pool to end. Those that
// Get has given are for who has them to end. It may be called again.
func (p *Pool) Close() {
	p.mu.Lock()
	spares := p.spares
	p.spares = nil
	if !p.closed {
		p.closed = true
		close(p.done)
	}
	p.mu.Unlock()
	for _, w := range spares {
		w.Kill()
	}
	p.wg.Wait()
}
