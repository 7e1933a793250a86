// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"hwvtpm/guest/agent"
	"hwvtpm/guest/lab"
	"hwvtpm/guest/workload"
)

// GuestReport is what programs in a virtual machine see.
type GuestReport struct {
	Kernel string     `json:"kernel"`
	Rows   []GuestRow `json:"rows"`
}

// GuestRow is one command on /dev/tpm0 behind each of QEMU's devices.
type GuestRow struct {
	Placement string  `json:"placement"`
	Command   string  `json:"command"`    // the workload's name of it
	Split     Dist    `json:"split"`      // hwvtpm, split ring
	Packed    Dist    `json:"packed"`     // hwvtpm, packed ring
	CRB       Dist    `json:"crb"`        // swtpm behind tpm-crb
	TIS       Dist    `json:"tis"`        // swtpm behind tpm-tis
	OurCRB    Dist    `json:"our_crb"`    // hwvtpm behind tpm-crb
	OurTIS    Dist    `json:"our_tis"`    // hwvtpm behind tpm-tis
	Ratio     float64 `json:"ratio"`      // split / crb, medians
	MeanRatio float64 `json:"mean_ratio"` // split / crb, means
	// Processor time per command on the split ring. Making the key that a
	// command uses is in it.
	EngineCPU  time.Duration `json:"engine_cpu_ns"`
	BackendCPU time.Duration `json:"backend_cpu_ns"`
}

// The contestants of the guest part, in the order of a round.
const (
	guestSplit = iota
	guestPacked
	guestCRB
	guestTIS
	guestOurCRB
	guestOurTIS
	guests
)

var guestNames = [guests]string{
	"virtio, split", "virtio, packed", "tpm-crb and swtpm", "tpm-tis and swtpm", "tpm-crb and hwvtpm", "tpm-tis and hwvtpm",
}

// guestModels are those of QEMU's own devices.
var guestModels = [guests]string{guestCRB: "tpm-crb", guestTIS: "tpm-tis", guestOurCRB: "tpm-crb", guestOurTIS: "tpm-tis"}

// machine is a virtual machine that is paused but for its turns.
type machine struct {
	rig     *lab.Rig
	guest   *lab.Guest
	backend *lab.Backend // nil for the peers
	qemu    []int        // process ids
	servers []int        // of backend and engine, or swtpm
}

// guestBench has all machines at once: their boots are not part of a round.
type guestBench struct {
	machines [guests]machine
	plan     Plan
	progress func(string, ...any)
}

func newGuestBench(ctx context.Context, env *lab.Env, dir string, plan Plan, progress func(string, ...any)) (*guestBench, error) {
	g := &guestBench{plan: plan, progress: progress}
	for i := range g.machines {
		progress("guest: booting the machine with %s", guestNames[i])
		if err := g.boot(ctx, env, filepath.Join(dir, fmt.Sprint(i)), i); err != nil {
			return nil, errors.Join(err, g.close())
		}
	}
	return g, nil
}

func (g *guestBench) boot(ctx context.Context, env *lab.Env, logs string, i int) error {
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	m := &g.machines[i]
	others := children(os.Getpid())
	var err error
	if m.rig, err = lab.NewRig(env, logs); err != nil {
		return err
	}
	m.rig.Logf = g.progress
	opts := lab.VMOptions{}
	switch i {
	case guestSplit, guestPacked:
		opts.Monitor = m.rig.MonitorPath()
		if m.backend, err = m.rig.StartBackend(ctx, lab.BackendOptions{QMP: opts.Monitor}); err != nil {
			return err
		}
		opts.TPM = lab.VirtioTPM{Backend: m.backend, Props: map[string]any{"packed": i == guestPacked}}
	case guestOurCRB, guestOurTIS:
		if m.backend, err = m.rig.StartBackend(ctx, lab.BackendOptions{Emulator: true}); err != nil {
			return err
		}
		opts.TPM = lab.EmulatorTPM{Backend: m.backend, Model: guestModels[i]}
	default:
		peer, err := m.rig.StartSwtpm(ctx, "")
		if err != nil {
			return err
		}
		opts.TPM = lab.EmulatorTPM{Swtpm: peer, Model: guestModels[i]}
	}
	m.servers = newChildren(others)
	others = children(os.Getpid())
	if m.guest, err = m.rig.Boot(ctx, opts); err != nil {
		return err
	}
	m.qemu = newChildren(others)
	return errors.Join(m.awaitTPM(ctx), m.findEngine(), m.guest.QMP.Stop(ctx))
}

// findEngine adds the backend's engine to the servers. Behind QEMU's own devices it
// is not there before the machine is, and left out it would run on a processor of its
// own, whatever the placement.
func (m *machine) findEngine() error {
	if m.backend == nil {
		return nil
	}
	for _, pid := range m.servers {
		m.servers = append(m.servers, children(pid)...)
	}
	if engine := m.backend.Engine(); engine == 0 || !slices.Contains(m.servers, engine) {
		return fmt.Errorf("bench: the engine, process %d, is not among %d", engine, m.servers)
	}
	return nil
}

// newChildren are the children of this program that it did not have.
func newChildren(had []int) []int {
	return slices.DeleteFunc(children(os.Getpid()), func(pid int) bool { return slices.Contains(had, pid) })
}

// awaitTPM waits until the guest's kernel has made its TPM.
func (m *machine) awaitTPM(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.rig.Env.Patience(hang))
	defer cancel()
	for {
		_, err := m.guest.Agent.TPM(ctx, []byte{0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8}) // GetRandom(8)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("bench: the guest has no TPM: %w", err)
		}
	}
}

// turn lets the machine run for one measurement.
func (m *machine) turn(ctx context.Context, args agent.BenchArgs) (samples []time.Duration, err error) {
	if err := m.guest.QMP.Cont(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.guest.QMP.Stop(ctx)) }()
	results, err := m.guest.Agent.Bench(ctx, args)
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		samples = append(samples, r.Samples...)
	}
	return samples, nil
}

func (g *guestBench) run(ctx context.Context) (GuestReport, error) {
	r := GuestReport{Kernel: g.machines[0].guest.Hello.Kernel}
	for _, place := range placements() {
		for _, m := range g.machines {
			if err := errors.Join(pin(m.qemu, place.client), pin(m.servers, place.server)); err != nil {
				return r, err
			}
		}
		for _, command := range workload.Commands {
			if !place.has(command) {
				continue
			}
			g.progress("guest, %s: %s", place.name, commandNames[command])
			row, err := g.measure(ctx, command)
			if err != nil {
				return r, fmt.Errorf("bench: in the guest, %s: %w", command, err)
			}
			row.Placement = place.name
			r.Rows = append(r.Rows, row)
		}
	}
	return r, nil
}

// measure lets the machines take turns.
func (g *guestBench) measure(ctx context.Context, command string) (GuestRow, error) {
	args := g.plan.guestArgs(command)
	var all [guests]series
	var engine, backend time.Duration
	for range g.plan.GuestRounds {
		for i := range g.machines {
			m := &g.machines[i]
			e, b := m.cpu()
			samples, err := m.turn(ctx, args)
			if err != nil {
				return GuestRow{}, fmt.Errorf("%s: %w", guestNames[i], err)
			}
			if i == guestSplit {
				e2, b2 := m.cpu()
				engine, backend = engine+e2-e, backend+b2-b
			}
			all[i].add(samples)
		}
	}
	commands := time.Duration(g.plan.GuestRounds * (args.Iterations + args.Warmup))
	row := GuestRow{
		Command: command,
		Split:   all[guestSplit].dist(), Packed: all[guestPacked].dist(),
		CRB: all[guestCRB].dist(), TIS: all[guestTIS].dist(),
		OurCRB: all[guestOurCRB].dist(), OurTIS: all[guestOurTIS].dist(),
		EngineCPU: engine / commands, BackendCPU: backend / commands,
	}
	row.Ratio = ratio(row.Split.P50, row.CRB.P50)
	row.MeanRatio = ratio(row.Split.Mean, row.CRB.Mean)
	return row, nil
}

// cpu is the processor time of the machine's engine and backend so far.
func (m *machine) cpu() (engine, backend time.Duration) {
	if m.backend == nil {
		return 0, 0
	}
	pid := m.backend.Engine()
	return cpuTime(pid), cpuTime(parent(pid))
}

func (g *guestBench) close() error {
	var errs []error
	for _, m := range g.machines {
		if m.rig != nil {
			errs = append(errs, m.rig.Close())
		}
	}
	return errors.Join(errs...)
}
