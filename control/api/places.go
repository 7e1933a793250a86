// SPDX-License-Identifier: Apache-2.0

package api

import "sync"

// places bounds how many requests are under way, of all callers and of each, so that
// one who sends slowly does not keep the others out.
type places struct {
	all, each int

	mu    sync.Mutex // guards what follows
	taken int
	by    map[string]int
}

func newPlaces(all, each int) *places {
	return &places{all: all, each: each, by: map[string]int{}}
}

// enter takes a place for a caller, if there is one, and gives what gives it back.
func (p *places) enter(who string) (leave func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.all || p.by[who] >= p.each {
		return nil, false
	}
	p.taken++
	p.by[who]++
	return sync.OnceFunc(func() { p.leave(who) }), true
}

func (p *places) leave(who string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.by[who]--; p.by[who] == 0 {
		delete(p.by, who)
	}
}
