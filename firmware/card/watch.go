// SPDX-License-Identifier: Apache-2.0

package card

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// watcher watches the lines of all parked slots, with one thread. It tells a slot
// once, and in a goroutine of its own.
type watcher struct {
	epoll int
	stop  int // eventfd
	wg    sync.WaitGroup

	mu      sync.Mutex // guards what follows
	last    uint64     // ticket; 0 is stop's
	waiting map[uint64]*slot
	closed  bool
}

func newWatcher() (*watcher, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	w := &watcher{epoll: epoll, waiting: map[uint64]*slot{}}
	if w.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err == nil {
		if err = w.control(unix.EPOLL_CTL_ADD, w.stop, 0, unix.EPOLLIN); err != nil {
			unix.Close(w.stop)
		}
	}
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	w.wg.Go(w.run)
	return w, nil
}

// control is epoll_ctl(2) with a ticket as the event's data.
func (w *watcher) control(op, fd int, ticket uint64, events uint32) error {
	return unix.EpollCtl(w.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(ticket), Pad: int32(ticket >> 32)})
}

func ticketOf(e *unix.EpollEvent) uint64 { return uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 }

// add watches a socket for a slot, until it has told it or is told to remove it.
func (w *watcher) add(s *slot, fd int) (ticket uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, errClosed
	}
	w.last++
	if err := w.control(unix.EPOLL_CTL_ADD, fd, w.last, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLONESHOT); err != nil {
		return 0, fmt.Errorf("epoll: %w", err)
	}
	w.waiting[w.last] = s
	return w.last, nil
}

// remove ends what add began. Ticket 0 is nobody's.
func (w *watcher) remove(ticket uint64, fd int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ticket == 0 || w.closed {
		return
	}
	delete(w.waiting, ticket)
	unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, fd, nil)
}

func (w *watcher) run() {
	var events [64]unix.EpollEvent
	for {
		n, err := unix.EpollWait(w.epoll, events[:], -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return // the descriptor is ours and good: not reached
		}
		for i := range max(n, 0) {
			if !w.tell(&events[i]) {
				return
			}
		}
	}
}

// tell tells a slot, and says whether to go on.
func (w *watcher) tell(e *unix.EpollEvent) bool {
	ticket := ticketOf(e)
	if ticket == 0 {
		return false
	}
	w.mu.Lock()
	s := w.waiting[ticket]
	delete(w.waiting, ticket)
	w.mu.Unlock()
	if s != nil {
		hungUp := e.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
		w.wg.Go(func() { s.wake(ticket, hungUp) })
	}
	return true
}

// close ends the watching, and waits for the slots that were told. It may be
// called again.
func (w *watcher) close() {
	w.mu.Lock()
	already := w.closed
	w.closed = true
	w.mu.Unlock()
	if already {
		return
	}
	one := [8]byte{1}
	unix.Write(w.stop, one[:])
	w.wg.Wait()
	unix.Close(w.epoll)
	unix.Close(w.stop)
}
