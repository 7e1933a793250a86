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
	"hwvtpm/coproc/metrics"
	"hwvtpm/internal/cli"
	"hwvtpm/internal/footprint"
	"hwvtpm/vhostuser"
	"hwvtpm/virtqueue"
	"hwvtpm/vtpm"
	"hwvtpm/vtpm/hostdoor"
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
	if cfg.hostPCRs == hostdoor.ModeOff {
		log.Info("PCR 0-7 are the virtual machine's own, and its TPM says nothing of its host", "hostd", cfg.hostd)
	}
	h := hostdoor.NewHost(cfg.hostPCRs, cfg.hostd, log.Named("host"))
	card, slot, err := openSlot(ctx, cfg, h, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, slot.Close(), card.Close()) }()
	end, err := openEndpoint(cfg)
	if err != nil {
		return err
	}
	defer end.close()
	f, err := newFace(cfg, slot, log)
	if err != nil {
		return err
	}
	stop, err := serveMetrics(ctx, cfg.metrics, log, f, h)
	if err != nil {
		return err
	}
	defer stop()
	defer footprint.TrimLater().Stop()
	cli.Tell(log, "READY=1\nSTATUS=waiting for a virtual machine")
	defer cli.Tell(log, "STOPPING=1")
	return f.serve(ctx, end)
}

// face is what QEMU sees of the slot.
type face interface {
	// serve serves virtual machines until ctx ends, or the one whose
	// connection was inherited until that ends.
	serve(ctx context.Context, end endpoint) error
	counted
}

func newFace(cfg config, slot coproc.Slot, log hclog.Logger) (face, error) {
	if cfg.emulator {
		return newEmulator(cfg, slot, log)
	}
	return newBackend(cfg, slot, log)
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
	b.log.Info("ready", "version", cli.Version(), "reset-policy", string(b.cfg.policy))
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
	if b.monitor != nil {
		b.monitor.Wake()
	}
	b.log.Info("a virtual machine has connected", "pid", p.PID)
	cli.Tell(b.log, "STATUS=serving a virtual machine")
	run, err := runOf(b.cfg, p.PID)
	if err != nil {
		b.log.Warn("can't tell one run of the virtual machine from the next, so PCRs are kept: give --run-id", "error", err)
	}
	return b.device.PowerOn(ctx, run)
}

// runOf is the run that a connection from the process pid belongs to. If that
// can't be told, it is the unknown one.
func runOf(cfg config, pid int) (coproc.RunID, error) {
	if cfg.runName != "" {
		return vtpm.NamedRun(cfg.runName), nil
	}
	run, err := vtpm.PeerRun(pid)
	if err != nil {
		return vtpm.UnknownRun(), err
	}
	return run, nil
}

func (b *backend) disconnected(err error) {
	if err != nil {
		b.log.Warn("the virtual machine's connection ended", "error", err)
	} else {
		b.log.Info("the virtual machine has disconnected")
	}
	cli.Tell(b.log, "STATUS=waiting for a virtual machine")
}

// WriteMetrics implements counted.
func (b *backend) WriteMetrics(w *metrics.Writer) { b.device.WriteMetrics(w) }

func (b *backend) logTotals() {
	s := b.device.Stats()
	b.log.Info("stopping", "commands", s.Commands, "tpm-errors", s.Errors, "bad-requests", s.BadChains,
		"slot-errors", s.SlotErrors, "resets", s.Resets, "power-ons", s.PowerOns)
}
