// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/guest/agent"
)

// loader runs at most one background load.
type loader struct {
	mu     sync.Mutex // guards the fields below
	st     agent.LoadStatus
	cancel context.CancelFunc
	done   chan struct{}
}

func (l *loader) start(_ context.Context, a agent.LoadArgs) (none, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.st.Running {
		return none{}, errors.New("a load is running")
	}
	d, err := openTPM(a.Device, resourceManager)
	if err != nil {
		return none{}, err
	}
	// Not the request's context: the load outlives its request.
	ctx, cancel := context.WithCancel(context.Background())
	l.st, l.cancel, l.done = agent.LoadStatus{Running: true}, cancel, make(chan struct{})
	go l.loop(ctx, d, a)
	return none{}, nil
}

func (l *loader) loop(ctx context.Context, d *tpmDevice, a agent.LoadArgs) {
	defer close(l.done)
	defer d.Close()
	err := l.steps(ctx, d, a)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.st.Running = false
	if err != nil {
		l.st.Error = err.Error()
	}
}

func (l *loader) steps(ctx context.Context, d *tpmDevice, a agent.LoadArgs) error {
	var index tpm2.NamedHandle
	var auth tpm2.AuthHandle
	if a.Index != 0 {
		var err error
		if index, auth, err = nvHandles(d, a.Index); err != nil {
			return err
		}
	}
	for i := uint64(1); ctx.Err() == nil && (a.Steps == 0 || i <= a.Steps); i++ {
		if a.Index != 0 {
			value := binary.BigEndian.AppendUint64(nil, i)
			if _, err := nvWriteCommand(index, auth, 0, value).Execute(d); err != nil {
				return err
			}
			l.ack(func(st *agent.LoadStatus) { st.NV = i })
		}
		if a.PCR >= 0 {
			digest := agent.LoadDigest(i)
			if _, err := extendCommand(tpm2.TPMAlgSHA256, tpm2.TPMHandle(a.PCR), digest[:]).Execute(d); err != nil {
				return err
			}
			l.ack(func(st *agent.LoadStatus) { st.PCR = i })
		}
	}
	return nil
}

func (l *loader) ack(f func(*agent.LoadStatus)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.st)
}

func (l *loader) status(context.Context, none) (agent.LoadStatus, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.st, nil
}

// stop ends the load after the step in progress.
func (l *loader) stop(ctx context.Context, _ none) (agent.LoadStatus, error) {
	l.mu.Lock()
	cancel, done := l.cancel, l.done
	l.mu.Unlock()
	if done == nil {
		return agent.LoadStatus{}, errors.New("no load was started")
	}
	cancel()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return l.status(ctx, none{})
}
