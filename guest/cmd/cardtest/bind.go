// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"hwvtpm/coproc/pcie"
)

// The laboratory's ids of a card.
const (
	vendorID = 0x1234
	deviceID = 0x5650
)

const pciBus = "/sys/bus/pci"

// prepare finds the card and binds it.
func prepare() error {
	if card == "" {
		found, err := pcie.Find(vendorID, deviceID)
		if err != nil {
			return err
		}
		if len(found) != 1 {
			return fmt.Errorf("there are %d cards, at %q: choose one by -card", len(found), found)
		}
		card = found[0]
	}
	return bind()
}

// bind binds the card to vfio-pci, and to nothing else from now on.
func bind() error {
	device := filepath.Join(pciBus, "devices", card)
	if err := put(filepath.Join(device, "driver_override"), "vfio-pci"); err != nil {
		return err
	}
	driver, err := os.Readlink(filepath.Join(device, "driver"))
	if filepath.Base(driver) == "vfio-pci" {
		return nil
	}
	if err == nil {
		err = put(filepath.Join(device, "driver/unbind"), card)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return put(filepath.Join(pciBus, "drivers_probe"), card)
}

// unplug takes the card away from the kernel, which waits for its driver.
func unplug() error { return put(filepath.Join(pciBus, "devices", card, "remove"), "1") }

// plug lets the kernel find it again.
func plug() error {
	if err := put(filepath.Join(pciBus, "rescan"), "1"); err != nil {
		return err
	}
	return bind()
}

// put writes to a file of sysfs.
func put(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
