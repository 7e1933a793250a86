// SPDX-License-Identifier: Apache-2.0

package vfio

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Host is where the kernel shows its devices. The zero value is this machine.
type Host struct {
	Sys, Dev string // empty: /sys, /dev
}

func (h Host) sys(elem ...string) string {
	if h.Sys == "" {
		h.Sys = "/sys"
	}
	return filepath.Join(append([]string{h.Sys, "bus/pci/devices"}, elem...)...)
}

func (h Host) dev(elem ...string) string {
	if h.Dev == "" {
		h.Dev = "/dev"
	}
	return filepath.Join(append([]string{h.Dev}, elem...)...)
}

var addressPattern = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)

// Find lists the addresses of all functions of a vendor and device, in order.
// None is no error.
func (h Host) Find(vendor, device uint16) ([]string, error) {
	entries, err := os.ReadDir(h.sys())
	if err != nil {
		return nil, fmt.Errorf("list PCI functions: %w", err)
	}
	var found []string
	for _, e := range entries {
		if h.id(e.Name(), "vendor") == int(vendor) && h.id(e.Name(), "device") == int(device) {
			found = append(found, e.Name())
		}
	}
	slices.Sort(found)
	return found, nil
}

// id reads a number such as 0x1234 of a function; -1: there is none.
func (h Host) id(address, file string) int {
	b, err := os.ReadFile(h.sys(address, file))
	if err != nil {
		return -1 // unplugged since it was listed
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 0, 16)
	if err != nil {
		return -1
	}
	return int(n)
}

// function is what sysfs says about a function that can be opened.
type function struct {
	address string
	group   string // number of its IOMMU group
	cdev    string // name below /dev/vfio/devices; empty: none
}

// lookup finds a function and checks that it is ready for use by a process.
func (h Host) lookup(address string) (function, error) {
	f := function{address: address}
	if !addressPattern.MatchString(address) {
		return f, fmt.Errorf("%q is no PCI address such as 0000:05:00.0", address)
	}
	if _, err := os.Stat(h.sys(address)); errors.Is(err, fs.ErrNotExist) {
		return f, fmt.Errorf("there is no PCI function at %s", address)
	} else if err != nil {
		return f, err
	}
	var ok bool
	if f.group, ok = h.link(address, "iommu_group"); !ok {
		return f, errors.New("it is in no IOMMU group: turn the IOMMU on, in the firmware's setup and with intel_iommu=on " +
			"on the kernel's command line")
	}
	if nodes, err := os.ReadDir(h.sys(address, "vfio-dev")); err == nil && len(nodes) == 1 {
		f.cdev = nodes[0].Name()
	}
	if driver, bound := h.link(address, "driver"); driver != "vfio-pci" && f.cdev == "" {
		return f, notBound(address, driver, bound)
	}
	return f, nil
}

// link gives the name that a symbolic link of a function points to.
func (h Host) link(address, name string) (string, bool) {
	target, err := os.Readlink(h.sys(address, name))
	return filepath.Base(target), err == nil
}

// notBound says how a function gets to vfio-pci.
func notBound(address, driver string, bound bool) error {
	dir := "/sys/bus/pci/devices/" + address
	release, who := "", "it has no driver"
	if bound {
		release = fmt.Sprintf("echo %s > %s/driver/unbind; ", address, dir)
		who = "its driver is " + driver
	}
	return fmt.Errorf("%s, which is not vfio-pci; as root: modprobe vfio-pci; echo vfio-pci > %s/driver_override; "+
		"%secho %s > /sys/bus/pci/drivers_probe", who, dir, release, address)
}

// neighbours lists the functions of a group with the drivers that keep it from
// being handed out.
func (h Host) neighbours(address string) string {
	entries, _ := os.ReadDir(h.sys(address, "iommu_group", "devices"))
	var list []string
	for _, e := range entries {
		if driver, bound := h.link(e.Name(), "driver"); bound && driver != "vfio-pci" {
			list = append(list, e.Name()+" ("+driver+")")
		}
	}
	return strings.Join(list, ", ")
}
