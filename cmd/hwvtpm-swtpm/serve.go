// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/internal/cli"
	"hwvtpm/vtpm"
	"hwvtpm/vtpm/emulator"
)

// swtpm is the program swtpm.
func swtpm(ctx context.Context, con *console, args []string) error {
	if len(args) == 0 {
		fmt.Fprint(con.err, usage)
		return errors.New("give an interface: socket")
	}
	switch args[0] {
	case "socket":
	case "-v", "--version":
		return printVersion(con)
	case "-h", "--help":
		fmt.Fprint(con.out, usage)
		return errPrinted
	default:
		return fmt.Errorf("interface %q is not supported (but socket)", args[0])
	}
	cfg, err := parseSocket(con, args[1:])
	if err != nil {
		return err
	}
	if cfg.daemon && !inBackground(con.getenv) {
		return background()
	}
	if err := become(cfg.runAs); err != nil {
		return err
	}
	log, err := cfg.log.open("swtpm")
	if err != nil {
		return err
	}
	err = serve(ctx, con, cfg, log)
	if err != nil && cfg.log.file != "" {
		log.Error("ended", "error", err) // the caller prints it as well
	}
	return err
}

// serve serves the TPM until ctx ends, SHUTDOWN is asked for, or with
// --terminate a connection is lost.
func serve(ctx context.Context, con *console, cfg *socketConfig, log hclog.Logger) (err error) {
	if err := harden(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opening, err := startOpening(ctx, con, cfg, log)
	if err != nil {
		return err
	}
	f := &front{cfg: cfg, log: log, lost: make(chan struct{}, 1)}
	defer f.close()
	if err := f.listen(); err != nil {
		return errors.Join(err, opening.drop())
	}
	t, err := opening.wait()
	if err != nil {
		return err
	}
	slot := t.holder()
	defer func() { err = errors.Join(err, slot.Close(), t.Close()) }()
	if f.server, err = newServer(slot, f.dataEnded, log); err != nil {
		return err
	}
	remove, err := writePID(cfg)
	if err != nil {
		return err
	}
	defer remove()
	if inBackground(con.getenv) {
		if err := sayReady(con.getenv); err != nil {
			return err
		}
	}
	log.Info("ready", "version", cli.Version(), "state", cfg.state)
	err = f.serve(ctx)
	s := f.server.Stats()
	log.Info("ends", "commands", s.Commands, "resets", s.Resets, "slot-errors", s.SlotErrors)
	return err
}

// opening is a TPM that is being opened.
type opening struct {
	done chan struct{}
	tpm  *tpm
	err  error
}

// showUp is how long the sockets wait for the TPM. libvirt gives swtpm a second
// to make its socket; a failure that comes before is told by libvirt as it is.
const showUp = 500 * time.Millisecond

// startOpening opens the TPM of the state directory, and makes one if it has
// none. It returns when that is done, or takes long.
func startOpening(ctx context.Context, con *console, cfg *socketConfig, log hclog.Logger) (*opening, error) {
	s, err := readSettings(con.getenv)
	if err != nil {
		return nil, err
	}
	p, err := readPlace(cfg.state)
	fresh := errors.Is(err, errNoPlace)
	if err != nil && !fresh {
		return nil, err
	}
	o := &opening{done: make(chan struct{})}
	go func() {
		defer close(o.done)
		if fresh {
			p, o.err = createTPM(ctx, s, cfg.state, newTPM{keys: defaultKeys, banks: abi.DefaultBanks}, log)
		}
		if o.err == nil {
			o.tpm, o.err = openTPM(ctx, s, cfg.state, p, log)
		}
		if o.tpm != nil && o.err != nil {
			log.Info("somebody has the TPM, and may be about to let go of it", "error", o.err)
			o.err = nil
		}
	}()
	select {
	case <-o.done:
		return o, o.err
	case <-time.After(showUp):
		return o, nil
	}
}

func (o *opening) wait() (*tpm, error) {
	<-o.done
	return o.tpm, o.err
}

// drop ends what nobody wants any more.
func (o *opening) drop() error {
	if t, err := o.wait(); err == nil {
		return t.Close()
	}
	return nil
}

// newServer makes the server of the control protocol. All of this process is
// one run of the TPM, as with swtpm.
func newServer(slot coproc.Slot, dataEnded func(), log hclog.Logger) (*emulator.Server, error) {
	run, err := vtpm.PeerRun(os.Getpid())
	if err != nil {
		return nil, err
	}
	return emulator.NewServer(emulator.Config{
		Slot:      slot,
		OnConnect: func(emulator.Peer) coproc.RunID { return run },
		OnDataEnd: dataEnded,
		Logger:    log.Named("tpm-emulator"),
	})
}

// writePID writes the process id where it was asked for.
func writePID(cfg *socketConfig) (remove func(), err error) {
	text := []byte(strconv.Itoa(os.Getpid()))
	if cfg.pidFD >= 0 {
		f := os.NewFile(uintptr(cfg.pidFD), "pid")
		_, err := f.Write(text)
		return func() {}, errors.Join(err, f.Close())
	}
	if cfg.pidFile == "" {
		return func() {}, nil
	}
	if err := os.WriteFile(cfg.pidFile, text, 0o644); err != nil {
		return nil, fmt.Errorf("pid file: %w", err)
	}
	path := cfg.pidFile
	return func() { os.Remove(path) }, nil
}
