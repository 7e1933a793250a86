// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/pcie/internal/vfio"
)

// kernelFunction is a function that the kernel has handed out. It ends once,
// for one of three reasons, in a goroutine of its own: the kernel waits for the
// function, however long it is not used.
type kernelFunction struct {
	config vfio.Region
	onEnd  func()
	done   chan struct{} // closed when onEnd has returned

	mu     sync.RWMutex // held to read while the function is used
	events [3]int       // eventfds, by why the function ends
	dev    kernelDevice
	bar    *vfio.BAR
	err    error // not nil: all of it is given back
}

// kernelDevice is a *vfio.Device, or what stands for one in a test.
type kernelDevice interface {
	CanReset() bool
	Region(index uint32) (vfio.Region, error)
	OpenBAR(index uint32, mapped bool) (*vfio.BAR, error)
	Interrupts(index uint32) (uint32, error)
	SetEvents(index uint32, eventFDs []int) error
	ReadRegion(r vfio.Region, off uint64, b []byte) error
	WriteRegion(r vfio.Region, off uint64, b []byte) error
	MapDMA(fd int, iova, size uint64) error
	Reset() error
	Close()
}

// Why a function ends.
const (
	endClose = iota
	endUnplug
	endError
)

var endings = [...]error{
	endClose:  coproc.ErrClosed,
	endUnplug: errors.New("kernel took the function back: it was unplugged or unbound"),
	endError:  errors.New("function reported an error that it cannot correct"),
}

// watch waits for the end.
func (k *kernelFunction) watch() {
	defer close(k.done)
	err := k.await()
	k.mu.Lock()
	k.err = err
	k.release()
	k.mu.Unlock()
	k.onEnd()
}

// await gives the reason of the end. The events are not closed before.
func (k *kernelFunction) await() error {
	var fds [len(k.events)]unix.PollFd
	for {
		for i, e := range k.events {
			fds[i] = unix.PollFd{Fd: int32(e), Events: unix.POLLIN}
		}
		if _, err := unix.Poll(fds[:], -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("watch the function: %w", err)
		}
		for i := range fds {
			if fds[i].Revents != 0 {
				return endings[i]
			}
		}
	}
}

// release gives everything back. A mapped BAR would keep the function.
func (k *kernelFunction) release() {
	if k.bar != nil {
		k.bar.Close()
	}
	k.dev.Close()
	for _, e := range k.events {
		if e >= 0 {
			unix.Close(e)
		}
	}
}

// use runs f with the function, if it is still there.
func (k *kernelFunction) use(f func() error) error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.err != nil {
		return k.err
	}
	return f()
}

// change is use for what changes k.dev itself.
func (k *kernelFunction) change(f func() error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	return f()
}

// Err implements Transport.
func (k *kernelFunction) Err() error {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.err
}

// Close implements Transport.
func (k *kernelFunction) Close() error {
	k.mu.RLock()
	if k.err == nil {
		signal(k.events[endClose])
	}
	k.mu.RUnlock()
	<-k.done
	return nil
}
