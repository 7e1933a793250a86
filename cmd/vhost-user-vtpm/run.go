// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/vhostuser"
	"hwvtpm/virtqueue"
	"hwvtpm/vtpm"
)

func newLogger(cfg config) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name:       "vhost-user-vtpm",
		Level:      hclog.LevelFromString(cfg.logLevel),
		Output:     os.Stderr,
		JSONFormat: cfg.logFormat == "json",
	})
}

// harden keeps guest memory, which this process maps, and the passwords in a
// guest's commands out of core dumps, the descriptors it was started with out
// of its engine, and its footprint small: there is one such process for each
// virtual machine.
func harden() error {
	debug.SetGCPercent(50)
	// What a launcher leaves open, and the socket of --fd, have no
	// close-on-exec flag. Go's own descriptors have it already.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("keeping descriptors from the engine (Linux 5.11 or newer is needed): %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("switching core dumps off: %w", err)
	}
	// A core_pattern that is a pipe does not care for the limit. This also
	// closes /proc/PID/mem to other processes of the same user.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("switching core dumps off: %w", err)
	}
	// Every thread has this flag of its own, and threads run already. Go
	// can't reach them all in a binary that has cgo in it (ENOTSUP): this
	// program is meant to be built without.
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("giving up new privileges (was this built with CGO_ENABLED=0?): %w", errno)
	}
	return nil
}

// run serves until ctx ends and then shuts down in order: the queue stops, the
// TPM's state is saved, the socket disappears.
func run(ctx context.Context, cfg config) (err error) {
	log := newLogger(cfg)
	if err := harden(); err != nil {
		return err
	}
	// The coprocessor comes first: QEMU must not find a socket behind which
	// no TPM can be.
	card, slot, err := openSlot(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, slot.Close(), card.Close()) }()
	end, err := openEndpoint(cfg)
	if err != nil {
		return err
	}
	defer end.close()
	b, err := newBackend(cfg, slot, log)
	if err != nil {
		return err
	}
	stop, err := b.serveMetrics(ctx)
	if err != nil {
		return err
	}
	defer stop()
	return b.serve(ctx, end)
}

// backend is the device with what surrounds it in this program.
type backend struct {
	cfg     config
	log     hclog.Logger
	device  *vtpm.Device
	monitor *vtpm.QMPMonitor // nil without --qmp
	server  *vhostuser.Server
}

func newBackend(cfg config, slot coproc.Slot, log hclog.Logger) (*backend, error) {
	b := &backend{cfg: cfg, log: log}
	vcfg := vtpm.Config{Slot: slot, Policy: cfg.policy, Layouts: cfg.layouts, Logger: log.Named("vtpm")}
	if cfg.policy == vtpm.PolicyQMP {
		b.monitor = vtpm.NewQMPMonitor(cfg.qmpPath, log.Named("qmp"))
		vcfg.Monitor = b.monitor
	}
	var err error
	if b.device, err = vtpm.NewDevice(vcfg); err != nil {
		return nil, err
	}
	scfg := vhostuser.Config{
		Device:       b.device,
		Logger:       log.Named("vhost-user"),
		OnConnect:    b.connected,
		OnDisconnect: b.disconnected,
	}
	if !cfg.packed {
		scfg.Features = ^uint64(1 << virtqueue.FeatureRingPacked)
	}
	b.server, err = vhostuser.NewServer(scfg)
	return b, err
}

func (b *backend) serve(ctx context.Context, end endpoint) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if b.monitor != nil {
		wg.Go(func() { b.monitor.Run(ctx, b.device.CheckMonitor) })
	}
	debug.FreeOSMemory()
	b.tell("READY=1\nSTATUS=waiting for a virtual machine")
	b.log.Info("ready", "version", version(), "reset-policy", string(b.cfg.policy))
	defer b.tell("STOPPING=1")
	var err error
	if end.conn != nil {
		err = b.server.ServeConn(ctx, end.conn)
	} else {
		err = b.server.Serve(ctx, end.listener)
	}
	b.logTotals()
	return err
}

// connected is called for each new vhost-user connection, before its first
// message is answered.
func (b *backend) connected(ctx context.Context, p vhostuser.Peer) error {
	run := vtpm.UnknownRun()
	if b.cfg.runName != "" {
		run = vtpm.NamedRun(b.cfg.runName)
	} else if id, err := vtpm.PeerRun(p.PID); err == nil {
		run = id
	} else {
		b.log.Warn("can't tell one run of the virtual machine from the next, so PCRs are kept: give --run-id", "error", err)
	}
	if b.monitor != nil {
		b.monitor.Wake()
	}
	b.log.Info("a virtual machine has connected", "pid", p.PID)
	b.tell("STATUS=serving a virtual machine")
	return b.device.PowerOn(ctx, run)
}

func (b *backend) disconnected(err error) {
	if err != nil {
		b.log.Warn("the virtual machine's connection ended", "error", err)
	} else {
		b.log.Info("the virtual machine has disconnected")
	}
	b.tell("STATUS=waiting for a virtual machine")
}

func (b *backend) tell(state string) {
	if err := notify(state); err != nil {
		b.log.Warn("service manager", "error", err)
	}
}

func (b *backend) logTotals() {
	s := b.device.Stats()
	b.log.Info("stopping", "commands", s.Commands, "tpm-errors", s.Errors, "bad-requests", s.BadChains,
		"slot-errors", s.SlotErrors, "resets", s.Resets, "power-ons", s.PowerOns)
}
