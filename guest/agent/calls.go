// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"strings"
)

// Run runs a program of the guest. A program that fails is not an error: see
// Result.ExitCode and [Result.Err].
func (c *Client) Run(ctx context.Context, argv ...string) (Result, error) {
	var r Result
	err := c.Call(ctx, OpRun, RunArgs{Argv: argv}, &r)
	return r, err
}

// Err is nil if the program ended with exit code 0.
func (r Result) Err() error {
	if r.ExitCode == 0 {
		return nil
	}
	return fmt.Errorf("agent: exit code %d: %s", r.ExitCode, strings.TrimSpace(string(r.Stderr)))
}

// ReadFile returns at most MaxOutput bytes of a file of the guest.
func (c *Client) ReadFile(ctx context.Context, path string) ([]byte, error) {
	var d Data
	err := c.Call(ctx, OpRead, ReadArgs{Path: path}, &d)
	return d.Data, err
}

// WriteFile creates or replaces a file of the guest.
func (c *Client) WriteFile(ctx context.Context, path string, data []byte) error {
	return c.Call(ctx, OpWrite, WriteArgs{Path: path, Data: data}, nil)
}

// Reboot restarts the guest in good order and returns its next hello.
func (c *Client) Reboot(ctx context.Context) (Hello, error) {
	prev, err := c.goDown(ctx, OpReboot, nil)
	if err != nil {
		return Hello{}, err
	}
	return c.WaitBoot(ctx, prev)
}

// Kexec replaces the guest's kernel without a reset of the machine and returns
// the next hello.
func (c *Client) Kexec(ctx context.Context, args KexecArgs) (Hello, error) {
	prev, err := c.goDown(ctx, OpKexec, args)
	if err != nil {
		return Hello{}, err
	}
	return c.WaitBoot(ctx, prev)
}

// Poweroff shuts the guest down in good order; it returns when the guest has
// accepted that.
func (c *Client) Poweroff(ctx context.Context) error {
	_, err := c.goDown(ctx, OpPoweroff, nil)
	return err
}

func (c *Client) goDown(ctx context.Context, op string, args any) (Hello, error) {
	hello, err := c.WaitHello(ctx)
	if err != nil {
		return Hello{}, err
	}
	if err := c.Call(ctx, op, args, nil); err != nil {
		return Hello{}, err
	}
	c.markGone(hello.Session)
	return hello, nil
}

// TPM sends one raw command to /dev/tpmrm0 and returns the raw response.
func (c *Client) TPM(ctx context.Context, command []byte) ([]byte, error) {
	var d Data
	err := c.Call(ctx, OpTPMRaw, RawArgs{Command: command}, &d)
	return d.Data, err
}

// PCRRead reads PCRs of one bank ("" means sha256).
func (c *Client) PCRRead(ctx context.Context, bank string, pcrs ...int) (PCRs, error) {
	var r PCRs
	err := c.Call(ctx, OpPCRRead, PCRReadArgs{Bank: bank, PCRs: pcrs}, &r)
	return r, err
}

// PCRExtend extends a PCR of one bank ("" means sha256).
func (c *Client) PCRExtend(ctx context.Context, bank string, pcr int, digest []byte) error {
	return c.Call(ctx, OpPCRExtend, PCRExtendArgs{Bank: bank, PCR: pcr, Digest: digest}, nil)
}

// Devices lists the guest's virtio bus.
func (c *Client) Devices(ctx context.Context) ([]VirtioDevice, error) {
	var r []VirtioDevice
	err := c.Call(ctx, OpDevices, nil, &r)
	return r, err
}

// Bench measures TPM commands inside the guest.
func (c *Client) Bench(ctx context.Context, args BenchArgs) ([]BenchResult, error) {
	var r []BenchResult
	err := c.Call(ctx, OpBench, args, &r)
	return r, err
}

// LoadStatus asks how far the background load has come.
func (c *Client) LoadStatus(ctx context.Context) (LoadStatus, error) {
	var r LoadStatus
	err := c.Call(ctx, OpLoadStatus, nil, &r)
	return r, err
}
