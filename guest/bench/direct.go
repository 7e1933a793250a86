// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hwvtpm/guest/workload"
)

//go:embed direct/direct.c
var directSource []byte

// direct is libtpms called in a loop by a C program. It measures itself.
type direct struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// openDirect compiles the program, which needs gcc and libtpms-dev, starts it
// and its TPM.
func openDirect(ctx context.Context, dir string) (*direct, error) {
	source, program := filepath.Join(dir, "direct.c"), filepath.Join(dir, "direct")
	if err := os.WriteFile(source, directSource, 0o600); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-o", program, source, "-ltpms").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("bench: gcc: %w\n%s", err, out)
	}
	d := &direct{cmd: exec.Command(program)}
	in, ierr := d.cmd.StdinPipe()
	out, oerr := d.cmd.StdoutPipe()
	d.cmd.Stderr = os.Stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := errors.Join(ierr, oerr, d.cmd.Start()); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	d.in, d.out = in, bufio.NewReader(out)
	if err := startup(d); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// run repeats a command and returns how long each took, and the last response.
func (d *direct) run(command []byte, n int) ([]time.Duration, []byte, error) {
	if _, err := fmt.Fprintf(d.in, "%d %x\n", n, command); err != nil {
		return nil, nil, fmt.Errorf("bench: libtpms: %w", err)
	}
	times, err := d.out.ReadString('\n')
	if err != nil {
		return nil, nil, fmt.Errorf("bench: libtpms: %w", err)
	}
	text, err := d.out.ReadBytes('\n')
	if err != nil {
		return nil, nil, fmt.Errorf("bench: libtpms: %w", err)
	}
	samples := make([]time.Duration, 0, n)
	for field := range strings.FieldsSeq(times) {
		ns, err := strconv.ParseInt(field, 10, 64)
		if err != nil || ns < 0 {
			return nil, nil, fmt.Errorf("bench: libtpms failed: %q", field)
		}
		samples = append(samples, time.Duration(ns))
	}
	resp, err := hex.DecodeString(string(bytes.TrimSpace(text)))
	return samples, resp, err
}

// Send makes it a go-tpm transport.
func (d *direct) Send(command []byte) ([]byte, error) {
	_, resp, err := d.run(command, 1)
	return resp, err
}

// play is the function play for the one that measures itself.
func (d *direct) play(s workload.Script, warmup, n int) ([]time.Duration, error) {
	if err := workload.SendAll(d, s.Prepare); err != nil {
		return nil, err
	}
	samples, resp, err := d.run(s.Command, warmup+n)
	if err == nil {
		err = workload.CheckResponse(resp)
	}
	if err != nil {
		return nil, err
	}
	return samples[warmup:], workload.SendAll(d, s.Cleanup)
}

func (d *direct) close() {
	_ = d.in.Close() // the program ends with its input
	_ = d.cmd.Wait()
}
