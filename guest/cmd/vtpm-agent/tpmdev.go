// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"hwvtpm/guest/agent"
)

const (
	resourceManager = "/dev/tpmrm0"
	rawDevice       = "/dev/tpm0"

	maxResponse = 4096 // the kernel's limit in both directions
)

// tpmDevice is an open TPM device node. It implements go-tpm's transport.TPM.
//
// It is a plain blocking file descriptor and not an os.File: that would put the
// node into non-blocking mode for the runtime's poller, and a non-blocking TPM
// node hands commands to a kernel worker instead of executing them in write.
type tpmDevice struct {
	fd   int
	resp [maxResponse]byte
}

func openTPM(path, fallback string) (*tpmDevice, error) {
	if path == "" {
		path = fallback
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &tpmDevice{fd: fd}, nil
}

func (d *tpmDevice) Close() error { return unix.Close(d.fd) }

// Send executes one command. The response is valid until the next call.
func (d *tpmDevice) Send(command []byte) ([]byte, error) {
	n, err := unix.Write(d.fd, command)
	if err != nil {
		return nil, fmt.Errorf("write a TPM command: %w", err)
	}
	if n != len(command) {
		return nil, fmt.Errorf("write a TPM command: %d of %d bytes", n, len(command))
	}
	n, err = unix.Read(d.fd, d.resp[:])
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(d.fd, d.resp[:])
	}
	if err != nil {
		return nil, fmt.Errorf("read a TPM response: %w", err)
	}
	return d.resp[:n], nil
}

// withTPM runs f on an open resource manager node (or the one that a names).
func withTPM(a agent.TPMArgs, f func(*tpmDevice) error) error {
	d, err := openTPM(a.Device, resourceManager)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(d)
}
