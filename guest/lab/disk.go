// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A disk that a PC's BIOS starts, without partitions and file systems:
//
//	sector 0       boot.img, the master boot record
//	sector 1       core.img, which boot.img loads
//	sector 1024    GRUB's commands, eight sectors
//	sector 2048    the kernel, and behind it the initramfs
//
// GRUB names raw sectors as (hd0)FIRST+COUNT (GRUB manual, "Block list syntax").
const (
	sectorSize    = 512
	coreSector    = 1
	commandSector = 1024
	commandSize   = 8 * sectorSize
	kernelSector  = 2048
)

// bootDisk makes the disk; cmdline is the kernel's.
func (e *Env) bootDisk(out, kernel, initrd, cmdline string) (err error) {
	f, err := os.OpenFile(out, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("lab: disk: %w", err)
	}
	d := disk{file: f, limit: commandSector}
	d.put(0, filepath.Join(e.Cache, "grub", "boot.img"))
	d.put(coreSector, filepath.Join(e.Cache, "grub", "core.img"))
	d.limit = 0
	linux := d.put(kernelSector, kernel)
	initramfs := d.put(d.next, initrd)
	d.commands(fmt.Sprintf("linux %s %s\ninitrd %s\nboot\n", linux, cmdline, initramfs))
	if d.err == nil {
		d.err = f.Truncate(d.next * sectorSize)
	}
	if err := errors.Join(d.err, f.Close()); err != nil {
		return fmt.Errorf("lab: disk: %w", err)
	}
	return nil
}

// disk is one that is being made. The first error sticks.
type disk struct {
	file  *os.File
	next  int64 // sector behind what was put last
	limit int64 // sector that must stay free, or 0
	err   error
}

// put copies a file to a sector, and names the sectors that it fills.
func (d *disk) put(sector int64, name string) string {
	if d.err != nil {
		return ""
	}
	f, err := os.Open(name)
	if err != nil {
		d.err = err
		return ""
	}
	defer f.Close()
	n, err := io.Copy(io.NewOffsetWriter(d.file, sector*sectorSize), f)
	sectors := (n + sectorSize - 1) / sectorSize
	d.next = sector + sectors
	if d.err = err; err == nil && d.limit > 0 && d.next > d.limit {
		d.err = fmt.Errorf("there is no room for %s", name)
	}
	return fmt.Sprintf("(hd0)%d+%d", sector, sectors)
}

// commands stores GRUB's commands.
func (d *disk) commands(text string) {
	switch {
	case d.err != nil:
	case len(text) > commandSize:
		d.err = errors.New("the kernel's command line is too long")
	default:
		padding := bytes.Repeat([]byte("\n"), commandSize-len(text))
		_, d.err = d.file.WriteAt(append([]byte(text), padding...), commandSector*sectorSize)
	}
}
