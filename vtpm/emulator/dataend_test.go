// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"testing"

	"hwvtpm/coproc"
)

// Each data channel's end is told once: while the session lives, and before
// ServeConn returns.
func TestDataEndIsTold(t *testing.T) {
	ends := make(chan struct{}, 10)
	server, err := NewServer(Config{
		Slot:      &fakeSlot{},
		OnConnect: func(Peer) coproc.RunID { return coproc.RunID{} },
		OnDataEnd: func() { ends <- struct{}{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	theirs, mine := socketPair(t)
	done := make(chan error, 1)
	go func() { done <- server.ServeConn(t.Context(), mine) }()
	p := newPeer(t, theirs)
	p.openData()
	p.result(words(cmdInit, 0))
	if rc := p.rc(getRandom); rc != 0 || len(ends) != 0 {
		t.Errorf("code %#x, %d ends while the channel is open", rc, len(ends))
	}
	p.closeData()
	<-ends
	if res := p.openData(); res != resOK {
		t.Errorf("a data channel after the first one: %d", res)
	}
	theirs.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(ends) != 1 {
		t.Errorf("%d ends told by the session's end, want 1", len(ends))
	}
}
