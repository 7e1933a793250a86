// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"hwvtpm/internal/shares"
	"hwvtpm/vtpm/door"
	"hwvtpm/vtpm/hostdoor"
	"hwvtpm/vtpm/hostpcr"
)

// operation does what one operation asks for.
type operation func(ctx context.Context, caller door.Caller, body json.RawMessage) (any, error)

// doors answers the operations of one kind of channel.
type doors struct {
	m      *Manager
	name   string // in metrics
	ops    map[string]operation
	limits *shares.Shares // of each machine's requests; nil: none
	frank  bool           // callers are of the host
}

// newDoors has what is asked counted.
func (m *Manager) newDoors(d doors) *doors {
	d.m = m
	for _, op := range append(slices.Collect(maps.Keys(d.ops)), otherOp) {
		for _, result := range results {
			if op != otherOp || result == door.CodeNotFound {
				m.asked.show(key{d.name, op, result})
			}
		}
	}
	return &d
}

// otherOp stands for operations that there are not, whatever they were called.
const otherOp = "other"

const success = "success"

var results = []string{
	success, door.CodeBadRequest, door.CodeDenied, door.CodeNotFound, door.CodeBusy, door.CodeUnavailable, door.CodeInternal,
}

// Do implements door.Handler.
func (d *doors) Do(ctx context.Context, caller door.Caller, op string, body json.RawMessage) (any, error) {
	result, err := d.do(ctx, caller, op, body)
	k := key{d.name, op, success}
	if err != nil {
		k[2] = door.Code(err)
	}
	if d.ops[op] == nil {
		k[1] = otherOp
	}
	d.m.asked.add(k)
	return result, err
}

func (d *doors) do(ctx context.Context, caller door.Caller, op string, body json.RawMessage) (any, error) {
	f, ok := d.ops[op]
	if !ok {
		return nil, door.Errorf(door.CodeNotFound, "there is no such operation here")
	}
	if d.limits != nil && caller.VM != "" && !d.limits.Take(caller.VM, d.m.cfg.Now()) {
		return nil, door.Errorf(door.CodeBusy, "too many requests: slower, please")
	}
	result, err := f(ctx, caller, body)
	if err != nil {
		return nil, d.answer(ctx, op, caller, err)
	}
	return result, nil
}

// answer gives an error the code that its caller gets, and a guest no more of the host's
// inside than it has to know. What should not happen is logged.
func (d *doors) answer(ctx context.Context, op string, caller door.Caller, err error) error {
	for _, c := range []struct {
		cause error
		code  string
	}{
		{ErrRequest, door.CodeBadRequest}, {ErrDenied, door.CodeDenied}, {ErrNotFound, door.CodeNotFound},
		{ErrBusy, door.CodeBusy}, {ErrUnavailable, door.CodeUnavailable},
		{hostpcr.ErrTPM, door.CodeUnavailable}, {hostpcr.ErrQuote, door.CodeUnavailable},
		{hostpcr.ErrLog, door.CodeUnavailable}, {hostpcr.ErrWeak, door.CodeUnavailable},
	} {
		if errors.Is(err, c.cause) {
			d.m.log.Debug("refused", "op", op, "vm", caller.VM, "error", err) // callers can ask without end
			if t, ok := errors.AsType[*trouble](err); ok && !d.frank {
				return door.Errorf(c.code, "%s", t.told())
			}
			return door.Errorf(c.code, "%w", err)
		}
	}
	if _, ok := errors.AsType[*door.Error](err); !ok && ctx.Err() == nil { // callers can also go without end
		d.m.log.Error("failed", "op", op, "vm", caller.VM, "error", err)
	}
	return err
}

// with makes an operation of what takes a body.
func with[In any, Out any](f func(context.Context, door.Caller, *In) (Out, error)) operation {
	return func(ctx context.Context, caller door.Caller, body json.RawMessage) (any, error) {
		var in In
		if err := door.Decode(body, &in); err != nil {
			return nil, err
		}
		return f(ctx, caller, &in)
	}
}

// none is the body of an operation that takes nothing.
type none struct{}

// Kinds of doors of guests, by which they are counted.
const (
	GuestSocket = "guest-socket"
	GuestVsock  = "guest-vsock"
	GuestHTTPS  = "guest-https"
)

// Guests answers guests at a kind of door. Each channel belongs to the caller's machine;
// one that belongs to nobody proves the machine by what it asks with.
func (m *Manager) Guests(kind string) door.Handler {
	return m.newDoors(doors{name: kind, limits: m.requests, ops: map[string]operation{
		door.OpHello: with(func(_ context.Context, caller door.Caller, _ *none) (door.Hello, error) {
			return door.Hello{Version: door.Version, VM: caller.VM}, nil
		}),
		door.OpEK: with(func(ctx context.Context, caller door.Caller, _ *none) ([]door.EK, error) {
			if caller.VM == "" {
				return nil, door.Errorf(door.CodeDenied, "this channel belongs to no machine")
			}
			return m.EKs(ctx, caller.VM)
		}),
		door.OpEnrol:    with(m.Enrol),
		door.OpProve:    with(m.Prove),
		door.OpEvidence: with(m.Evidence),
	}})
}

// Backends answers the processes that run machines' devices.
func (m *Manager) Backends() door.Handler {
	return m.newDoors(doors{name: "backend", frank: true, ops: map[string]operation{
		door.OpPCRs: with(func(ctx context.Context, _ door.Caller, _ *none) (door.PCRs, error) {
			values, err := m.PCRs(ctx)
			return hostdoor.FromMap(&values), err
		}),
		door.OpBootEvidence: with(m.BootEvidence),
	}})
}

// Operators answers the host's operators.
func (m *Manager) Operators() door.Handler {
	return m.newDoors(doors{name: "operator", frank: true, ops: map[string]operation{
		door.OpStatus: with(func(context.Context, door.Caller, *none) (door.Status, error) { return m.Status(), nil }),
		door.OpVMs:    with(func(context.Context, door.Caller, *none) ([]string, error) { return m.VMs(), nil }),
		door.OpVM: with(func(ctx context.Context, _ door.Caller, r *door.VMRequest) (*door.VM, error) {
			return m.VM(ctx, r.Name)
		}),
	}})
}
