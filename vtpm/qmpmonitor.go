// SPDX-License-Identifier: Apache-2.0

package vtpm

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/qmp"
)

// Delays between attempts to reach the QMP socket. QEMU makes it when it
// starts and answers on it once its main loop runs, both after it has
// connected to its vhost-user backend.
const (
	firstRedial = 20 * time.Millisecond
	lastRedial  = time.Second
)

var errNoMonitor = errors.New("vtpm: not connected to the QMP socket")

// QMPMonitor keeps a QMP connection to QEMU and knows of the virtual machine's
// resets. It needs a QMP socket of its own: a QMP socket serves one client at
// a time.
//
// When QEMU emits RESET the device's queue has already been stopped, and the
// event is in the socket before QEMU starts the queue again. Poll, called at
// that start, therefore sees every reset there was; it does not wait for QEMU.
//
// If the connection is lost while QEMU lives on, resets in the gap are not
// heard of and PCRs are kept: the guest's measurements then fail an
// attestation instead of passing a forged one.
type QMPMonitor struct {
	path string
	log  hclog.Logger
	wake chan struct{}

	mu     sync.Mutex
	client *qmp.Client
	// resets holds the RESET events that nobody has acted on. Only Poll
	// takes them out, so that no event can be seen by one goroutine and
	// acted on after another has let a command pass.
	resets *qmp.Subscription
}

// NewQMPMonitor makes a monitor for the QMP socket at path; a nil log means
// none. Nothing happens before Run.
func NewQMPMonitor(path string, log hclog.Logger) *QMPMonitor {
	if log == nil {
		log = hclog.NewNullLogger()
	}
	return &QMPMonitor{path: path, log: log, wake: make(chan struct{}, 1)}
}

// Run connects, again and again, until ctx ends. It calls notify whenever Poll
// has something new to tell.
func (m *QMPMonitor) Run(ctx context.Context, notify func()) {
	delay := firstRedial
	for ctx.Err() == nil {
		if client, err := qmp.Dial(ctx, m.path); err == nil {
			began := time.Now()
			m.serve(ctx, client, notify)
			if time.Since(began) > lastRedial { // else it may hang up every time
				delay = firstRedial
			}
		}
		m.wait(ctx, delay)
		delay = min(2*delay, lastRedial)
	}
}

// Wake makes a waiting Run try again at once: a virtual machine has connected,
// so its QMP socket is not far.
func (m *QMPMonitor) Wake() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *QMPMonitor) wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-m.wake:
	case <-t.C:
	}
}

func (m *QMPMonitor) serve(ctx context.Context, client *qmp.Client, notify func()) {
	defer client.Close()
	resets, signal := client.Subscribe("RESET"), client.Subscribe("RESET")
	defer resets.Close()
	defer signal.Close()
	m.attach(client, resets)
	defer m.attach(nil, nil)
	m.log.Info("connected to QEMU's monitor")
	for {
		_, err := signal.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		notify()
		if err != nil && !errors.Is(err, qmp.ErrOverflow) {
			m.log.Info("QEMU's monitor is gone", "reason", err)
			return
		}
	}
}

func (m *QMPMonitor) attach(c *qmp.Client, s *qmp.Subscription) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.client, m.resets = c, s
}

// Poll implements [Monitor].
func (m *QMPMonitor) Poll() (reset bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client == nil {
		return false, errNoMonitor
	}
	err = m.client.Drain()
	for {
		if _, ok := m.resets.TryNext(); !ok {
			// Events that were too many to keep were resets too.
			return reset || m.resets.Overflowed(), err
		}
		reset = true
	}
}
