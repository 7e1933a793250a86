// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"hwvtpm/firmware/engine"
)

// Run is a worker's life: it serves one slot until the driver goes. The
// process is hardened first and is not good for anything else afterwards.
func Run(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	log := logger{w: cfg.Log}
	if err := harden(); err != nil {
		return err
	}
	tune()
	eng, err := engine.New()
	if err != nil {
		return err
	}
	eng.FastCurves(!cfg.GenericCurves)
	run := &running{cancelTPM: eng.Cancel}
	srv := &server{running: run}
	srv.slot, srv.openErr = openSlot(cfg.StateDir, eng, log)
	if srv.openErr != nil {
		log.fail("slot cannot be opened", "err", srv.openErr)
	} else {
		defer srv.slot.close()
	}
	go serveControl(cfg.ControlFD, run, always)

	// libtpms gets one thread for its life, and that thread's wake-up is
	// the latency of the data socket.
	runtime.LockOSThread()
	return srv.serve(cfg.DataFD)
}

// harden makes the process keep its secrets to itself and outlive what is
// aimed at its parent: only the end of the sockets ends it, in order.
func harden() error {
	unix.Umask(0o077)
	os.Clearenv()
	// A terminal's or a service manager's signals are for the parent.
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("limit core size: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

// tune keeps the Go side small: it allocates next to nothing after the start,
// so a tight heap costs no time.
func tune() {
	runtime.GOMAXPROCS(2) // a TPM and a cancel; more would only cost memory
	debug.SetGCPercent(20)
	debug.SetMemoryLimit(8 << 20)
}
