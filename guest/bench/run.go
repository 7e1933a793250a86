// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"hwvtpm/guest/lab"
)

// Options say what to measure.
type Options struct {
	Plan     Plan
	Quick    bool   // Plan is QuickPlan: said in the report
	Guest    bool   // boot virtual machines
	Only     string // one of PartNames alone; empty: all of them
	Command  string // what the report says it was made by
	Progress io.Writer
}

// Run builds what it measures and measures it. It moves the calling thread
// between processors and children die with it, so it keeps the goroutine on its
// thread.
func Run(ctx context.Context, opts Options) (*Report, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	env, err := lab.Find()
	if err != nil {
		return nil, err
	}
	if err := prepare(ctx, env, opts); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer os.RemoveAll(dir)
	r := &run{
		ctx: ctx, opts: opts, env: env, dir: dir, begin: time.Now(),
		programs: programs{
			backend: env.Program("vhost-user-vtpm"), engine: env.Program("hwvtpm-engine"), card: env.Program("coprocd"),
			control: env.Program("vtpm-control"), hostd: env.Program("vtpm-hostd"),
		},
	}
	if err := r.placeEngine(); err != nil {
		return nil, err
	}
	r.report = &Report{Date: r.begin.UTC().Format(time.DateOnly), Command: opts.Command, Quick: opts.Quick, Plan: opts.Plan}
	if err := r.all(); err != nil {
		return nil, err
	}
	r.report.deriveStages()
	r.report.judge()
	return r.report, nil
}

// prepare has make build the programs, so that no old ones are measured.
func prepare(ctx context.Context, env *lab.Env, opts Options) error {
	if opts.Guest {
		return env.Prepare(ctx, opts.Progress)
	}
	cmd := exec.CommandContext(ctx, "make", "-s", "-C", env.Top, "build")
	cmd.Stdout, cmd.Stderr = opts.Progress, opts.Progress
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MFLAGS=", "MAKELEVEL=")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("bench: make build: %w", err)
	}
	return nil
}

// placeEngine puts the engine where workers can run it, which are users of their
// own: the work tree may be somebody's private folder.
func (r *run) placeEngine() error {
	data, err := os.ReadFile(r.programs.engine)
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	r.programs.engine = filepath.Join(r.dir, "hwvtpm-engine")
	if err := errors.Join(os.WriteFile(r.programs.engine, data, 0o755), os.Chmod(r.dir, 0o755)); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}

// run is one run.
type run struct {
	ctx      context.Context
	opts     Options
	env      *lab.Env
	programs programs
	dir      string
	begin    time.Time
	report   *Report
}

func (r *run) progress(format string, args ...any) {
	fmt.Fprintf(r.opts.Progress, "bench: %4.0fs  %s\n", time.Since(r.begin).Seconds(), fmt.Sprintf(format, args...))
}

// parts are measured one after the other: the quiet ones first, the virtual
// machines last.
var parts = []struct {
	name    string
	measure func(r *run, dir string) error
}{
	{"allocations", (*run).allocations}, {"starts", (*run).starts}, {"memory", (*run).memory},
	{"nv", (*run).nv}, {"host", (*run).host}, {"card", (*run).card}, {"attestation", (*run).attestation},
	{"guest", (*run).guest},
}

// PartNames lists what can be measured alone.
func PartNames() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

// all measures what was asked for.
func (r *run) all() (err error) {
	if r.report.Machine, err = describe(r.ctx, r.env, r.opts.Guest); err != nil {
		return err
	}
	for i, p := range parts {
		if p.name == "guest" && !r.opts.Guest || r.opts.Only != "" && p.name != r.opts.Only {
			continue
		}
		if err := r.ctx.Err(); err != nil {
			return fmt.Errorf("bench: %w", context.Cause(r.ctx))
		}
		dir := filepath.Join(r.dir, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		r.progress("%s", p.name)
		if err := p.measure(r, dir); err != nil {
			return fmt.Errorf("bench: %s: %w", p.name, err)
		}
	}
	return nil
}

func (r *run) allocations(dir string) (err error) {
	r.report.Allocations, err = measureAllocations(r.ctx, r.programs, dir, r.opts.Plan)
	return err
}

func (r *run) starts(dir string) (err error) {
	r.report.Starts, err = measureStarts(r.ctx, r.programs, dir, r.opts.Plan)
	return err
}

func (r *run) memory(dir string) error {
	m, err := measureMemory(r.ctx, r.programs, dir, r.opts.Plan)
	r.report.Memory = &m
	return err
}

func (r *run) nv(dir string) error {
	nv, err := measureNV(r.ctx, r.programs, dir, r.opts.Plan)
	r.report.NV = &nv
	return err
}

func (r *run) host(dir string) (err error) {
	h, err := newHostBench(r.ctx, r.programs, dir, r.opts.Plan)
	if err != nil {
		return err
	}
	defer h.close()
	r.report.Host, err = h.run(r.ctx, r.progress)
	return err
}

func (r *run) card(dir string) error {
	c, err := measureCard(r.ctx, r.programs, dir, r.opts.Plan, r.progress)
	r.report.Card = &c
	return err
}

func (r *run) attestation(dir string) error {
	a, err := measureAttest(r.ctx, r.programs, dir, r.opts.Plan, r.progress)
	r.report.Attest = &a
	return err
}

func (r *run) guest(dir string) error {
	g, err := newGuestBench(r.ctx, r.env, dir, r.opts.Plan, r.progress)
	if err != nil {
		return err
	}
	defer g.close()
	report, err := g.run(r.ctx)
	r.report.Guest = &report
	return err
}
