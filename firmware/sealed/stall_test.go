// SPDX-License-Identifier: Apache-2.0

package sealed

import (
	"testing"
	"time"
)

// slowCounter is a counter whose increment takes as long as the test likes.
type slowCounter struct {
	Counter
	began, end chan struct{} // nil: at once
}

func (c *slowCounter) Increment() error {
	if c.began != nil {
		close(c.began)
		<-c.end
	}
	return c.Counter.Increment()
}

// While the anchor advances, which may take a TPM a long time, nobody who asks it
// or tells it something waits; and what it is told meanwhile is not lost.
func TestNobodyWaitsForTheCounter(t *testing.T) {
	cfg := newConfig(t)
	slow := &slowCounter{Counter: cfg.Counter}
	cfg.Counter = slow
	a := newAnchorIn(t, cfg)
	must(t, a.Note(permanent(a, 1)))
	slow.began, slow.end = make(chan struct{}), make(chan struct{})
	advanced := make(chan error)
	go func() { advanced <- a.Advance() }()
	<-slow.began
	told := make(chan error)
	go func() {
		err := a.Note(permanent(a, 2))
		if _, generation, known := a.Newest(testSlot); !known || generation != 2 {
			t.Errorf("newest is generation %d", generation)
		}
		a.Digest()
		told <- err
	}()
	select {
	case err := <-told:
		must(t, err)
	case <-time.After(30 * time.Second):
		t.Error("who saves waits for the counter")
	}
	end := slow.end
	slow.began = nil
	close(end)
	must(t, <-advanced)
	if t.Failed() {
		return
	}
	old := readFile(t, cfg.Path)
	must(t, a.Advance()) // it is dirty again
	if string(old) == string(readFile(t, cfg.Path)) {
		t.Error("what was noted while the anchor advanced is in no record")
	}
	must(t, a.Close())
	a = reopen(t, cfg)
	defer a.Close()
	if err := a.Check(Label{testSlot, KindPermanent, 1, 1}); err == nil {
		t.Error("the state before what was noted is accepted")
	}
}
