// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Env says where things are and how fast the machine is. It is immutable and
// safe for concurrent use.
type Env struct {
	Top   string // the work tree
	Cache string // what fetch.sh got
	Build string // what make built
	Accel Accel
}

// Find locates the work tree from the current folder upwards. It builds and
// fetches nothing: see Prepare.
func Find() (*Env, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "guest", "lab", "fetch.sh")); err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil, errors.New("lab: not inside the work tree")
		}
		dir = parent
	}
	accel, err := chooseAccel()
	if err != nil {
		return nil, err
	}
	cache := os.Getenv("HWVTPM_CACHE")
	if cache == "" {
		cache = filepath.Join(dir, ".cache")
	}
	return &Env{Top: dir, Cache: cache, Build: filepath.Join(dir, "build"), Accel: accel}, nil
}

// Prepare fetches and builds what virtual machines need, by the Makefile's own
// targets, so that tests never run against old programs. make's output goes to w.
func (e *Env) Prepare(ctx context.Context, w io.Writer) error {
	cmd := exec.CommandContext(ctx, "make", "-s", "-C", e.Top, "prepare", "image")
	cmd.Stdout, cmd.Stderr = w, w
	// A make that runs these tests has no jobs to give away.
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MFLAGS=", "MAKELEVEL=")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("lab: make prepare image: %w", err)
	}
	return nil
}

// Patience scales a deadline that suits hardware virtualization.
func (e *Env) Patience(d time.Duration) time.Duration {
	return d * e.Accel.slowness()
}

// QEMU is the path of a QEMU that can carry the device.
func (e *Env) QEMU() string { return filepath.Join(e.Cache, "bin", "qemu-system-x86_64") }

// StockQEMU is the path of Debian 12's QEMU, which can't carry the device but has
// TPM devices of its own.
func (e *Env) StockQEMU() string { return filepath.Join(e.Cache, "bin", "qemu-7.2") }

// OVMF are the UEFI firmware for any QEMU here, and its variables as they are on
// a new machine, which a machine needs a copy of.
func (e *Env) OVMF() (code, variables string) {
	dir := filepath.Join(e.Cache, "qemu-7.2", "usr", "share", "OVMF")
	return filepath.Join(dir, "OVMF_CODE_4M.fd"), filepath.Join(dir, "OVMF_VARS_4M.fd")
}

// Kernel is the path of a guest kernel, such as "6.12".
func (e *Env) Kernel(series string) string {
	return filepath.Join(e.Cache, "kernel-"+series, "vmlinuz")
}

// Headers is the folder to give to make -C for an out-of-tree module.
func (e *Env) Headers(series string) string {
	return filepath.Join(e.Cache, "kernel-"+series, "headers")
}

// Program is the path of a program of this project.
func (e *Env) Program(name string) string { return filepath.Join(e.Build, name) }

// Image is the path of the guest's initramfs with tpm2-tools.
func (e *Env) Image() string { return filepath.Join(e.Build, "guest.cpio") }

// PlainImage is the path of the guest's initramfs without tpm2-tools, a third of
// Image's size.
func (e *Env) PlainImage() string { return filepath.Join(e.Build, "guest-plain.cpio") }

// TPMTools is a folder with Debian 12's tpm2-tools and their libraries, as they
// are in a Debian's root folder.
func (e *Env) TPMTools() string { return filepath.Join(e.Cache, "tpm2-tools") }
