// SPDX-License-Identifier: Apache-2.0

package virtqueue_test

import (
	"testing"
	"time"

	"hwvtpm/virtqueue"
	"hwvtpm/virtqueue/queuetest"
)

// eventfd stands for a kick or call: signals coalesce.
type eventfd chan struct{}

func (e eventfd) signal() {
	select {
	case e <- struct{}{}:
	default:
	}
}

// Driver and device in two goroutines that sleep whenever they may: a missing
// fence or a wrong event field ends in a lost notification, which the guard
// turns into a failure. Under -race this also proves that everything both
// sides touch is ordered by the ring words.
func TestNoNotificationIsLost(t *testing.T) {
	const requests = 20000
	forEachFormat(t, 8, func(t *testing.T, o queuetest.Options) {
		d, q := pair(t, nearWrap(o))
		kick, call := make(eventfd, 1), make(eventfd, 1)
		stop, stopped := make(chan struct{}), make(chan error, 1)
		go func() { stopped <- device(d.Memory(), q, kick, call, stop) }()

		guard := time.NewTimer(2 * time.Minute)
		defer guard.Stop()
		for done := 0; done < requests; {
			for i := range 3 {
				if d.InFlight() < 3 {
					add(t, d, [][]byte{pattern(i, 5)}, []int{5}, o.Indirect)
				}
			}
			if d.NeedKick() {
				kick.signal()
			}
			for {
				_, written, in, ok := d.Poll()
				if !ok {
					break
				}
				if written != 5 || in[0] == 0 {
					t.Fatalf("request %d: used with %d bytes %x", done, written, in)
				}
				done++
			}
			if d.Err() != nil {
				t.Fatal(d.Err())
			}
			if d.InFlight() == 0 || d.EnableCall() {
				continue
			}
			select {
			case <-call:
				d.DisableCall()
			case err := <-stopped:
				t.Fatalf("device ended: %v", err)
			case <-guard.C:
				t.Fatalf("notification lost: %d of %d done, %d in flight", done, requests, d.InFlight())
			}
		}
		close(stop)
		if err := <-stopped; err != nil {
			t.Fatal(err)
		}
	})
}

// device echoes requests until stop, in the manner of the package documentation.
func device(mem *virtqueue.Memory, q *virtqueue.Queue, kick, call eventfd, stop <-chan struct{}) error {
	var c virtqueue.Chain
	var buf [64]byte
	for {
		q.DisableKick()
		for {
			ok, err := q.Pop(&c)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			n, err := c.ReadAt(mem, buf[:], 0)
			if err != nil {
				return err
			}
			if _, err := c.WriteAt(q, buf[:n], 0); err != nil {
				return err
			}
			if err := q.Push(&c, uint32(n)); err != nil {
				return err
			}
			if q.NeedCall() {
				call.signal()
			}
		}
		if more, err := q.EnableKick(); err != nil {
			return err
		} else if more {
			continue
		}
		select {
		case <-kick:
		case <-stop:
			return nil
		}
	}
}
