// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hwvtpm/guest/agent"
)

// bootPatience is how long a boot to the agent may take on KVM.
const bootPatience = 40 * time.Second

// Guest is a virtual machine whose agent answers.
type Guest struct {
	*VM
	Agent *agent.Client
	Hello agent.Hello // of the first boot
}

// Boot starts a VM and waits for its guest's agent. A machine that dies or hangs
// before that is started a second time, which Rig.Logf reports; the TPM sees an
// ordinary loss of power in between.
func (r *Rig) Boot(ctx context.Context, opts VMOptions) (*Guest, error) {
	g, err := r.bootOnce(ctx, opts)
	if err == nil || ctx.Err() != nil {
		return g, err
	}
	r.logf("early boot failed, trying once more: %v", err)
	return r.bootOnce(ctx, opts)
}

func (r *Rig) bootOnce(ctx context.Context, opts VMOptions) (*Guest, error) {
	vm, err := r.StartVM(ctx, opts)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.Env.Patience(bootPatience))
	defer cancel()
	g := &Guest{VM: vm}
	err = vm.reach(ctx, func() (err error) {
		g.Agent, err = agent.Dial(vm.AgentSocket, nil)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, vm.Close())
	}
	r.own(g)
	if g.Hello, err = g.awaitHello(ctx); err != nil {
		g.Kill() // ended in order, QEMU would end a swtpm
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// awaitHello waits for the agent, but not for a machine that cannot come up.
func (g *Guest) awaitHello(ctx context.Context) (agent.Hello, error) {
	lost, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-lost.Done():
				return
			case <-g.done:
				stop(errors.New("QEMU ended"))
				return
			case <-tick.C:
				if g.panicked() {
					stop(errors.New("the guest's kernel panicked"))
					return
				}
			}
		}
	}()
	hello, err := g.Agent.WaitHello(lost)
	if err != nil {
		return hello, fmt.Errorf("lab: boot: %w; console ends with%s", err, tail(g.Console))
	}
	return hello, nil
}

// Close ends the machine and the connection to its agent. It is idempotent.
func (g *Guest) Close() error {
	return errors.Join(g.VM.Close(), g.Agent.Close())
}
