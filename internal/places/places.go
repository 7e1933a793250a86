// SPDX-License-Identifier: Apache-2.0

package places

import "sync"

// Places are what there is for requests under way. Its methods may be called from any
// goroutine.
type Places struct {
	all, each int

	mu    sync.Mutex // guards what follows
	taken int
	by    map[string]int
}

// New makes so many places in all, of which one caller can have so many.
func New(all, each int) *Places {
	return &Places{all: all, each: each, by: map[string]int{}}
}

// Enter takes a place for a caller, if there is one, and gives what gives it back, once
// however often it is called.
func (p *Places) Enter(who string) (leave func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.all || p.by[who] >= p.each {
		return nil, false
	}
	p.taken++
	p.by[who]++
	return sync.OnceFunc(func() { p.leave(who) }), true
}

func (p *Places) leave(who string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.by[who]--; p.by[who] == 0 {
		delete(p.by, who)
	}
}
