// SPDX-License-Identifier: Apache-2.0

// Vtpm-guest is a virtual machine's side of attestation: it has an attestation key
// of the machine's vTPM certified, and answers verifiers with evidence. Run it with
// --help for its commands, and see docs/guest.md.
//
// Rules of its output: what was asked for goes to stdout, and for attest is nothing
// but the evidence; all else goes to stderr. No secret is printed, and none is taken
// from the command line.
package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"syscall"

	"hwvtpm/control/client"
	"hwvtpm/guest/attester"
	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/aik"
	"hwvtpm/vtpm/door"
)

// Exit codes beside those of package cli. They are part of the interface.
const (
	exitNotFound = 3 // the machine is not enrolled, or has no vTPM or certified EK
	exitDenied   = 4 // the host or the control server refuses
	exitLater    = 5 // they don't answer, or are busy: try again later
)

// console is what the program has of its surroundings.
type console struct {
	out, err io.Writer
}

func main() {
	syscall.Umask(0o077)
	con := &console{out: os.Stdout, err: os.Stderr}
	cli.Main(func(ctx context.Context, args []string) int { return realMain(ctx, con, args) })
}

func realMain(ctx context.Context, con *console, args []string) int {
	inv, err := parse(con, args)
	if err == nil {
		err = inv.start(ctx)
	}
	return cli.End(con.err, "vtpm-guest", err, exitCode)
}

func exitCode(err error) int {
	switch {
	case refused(err):
		return exitDenied
	case later(err):
		return exitLater
	}
	for _, missing := range []error{attester.ErrNotEnrolled, aik.ErrNoCertificate, fs.ErrNotExist} {
		if errors.Is(err, missing) {
			return exitNotFound
		}
	}
	return cli.ExitFailure
}

// refused says whether somebody else's no is what went wrong.
func refused(err error) bool {
	if e, ok := errors.AsType[*door.Error](err); ok {
		return e.Code == door.CodeDenied || e.Code == door.CodeBadRequest || e.Code == door.CodeNotFound
	}
	e, ok := errors.AsType[*client.Error](err)
	return ok && e.Status/100 == 4 && e.Status != http.StatusTooManyRequests
}

// later says whether the same may go well at another time.
func later(err error) bool {
	if e, ok := errors.AsType[*door.Error](err); ok {
		return e.Code == door.CodeBusy || e.Code == door.CodeUnavailable
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Temporary()
	}
	return errors.Is(err, door.ErrClosed) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ECONNREFUSED)
}
