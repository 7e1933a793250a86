// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"net"
	"testing"
)

// A connection too many waits until another one ends, and Close ends the wait.
func TestConnectionsAreBounded(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := bounded(inner, 1)
	for range 3 { // all of them are in the kernel's queue
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	first.Close() // gives its place back once
	second, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	third := make(chan error)
	go func() {
		_, err := l.Accept()
		third <- err
	}()
	select {
	case err := <-third:
		t.Fatalf("Accept beyond the bound: %v", err)
	case l.(*boundedListener).places <- struct{}{}:
		t.Fatal("there is a place beyond the bound")
	default:
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-third; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}
