// SPDX-License-Identifier: Apache-2.0

package vfio

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakeHost makes a machine with some functions.
func fakeHost(t *testing.T, functions map[string]map[string]string) Host {
	t.Helper()
	dir := t.TempDir()
	h := Host{Sys: filepath.Join(dir, "sys"), Dev: filepath.Join(dir, "dev")}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(h.sys(), 0o755))
	must(os.MkdirAll(h.dev("vfio", "devices"), 0o755))
	for address, entries := range functions {
		must(os.MkdirAll(h.sys(address), 0o755))
		for name, value := range entries {
			switch name {
			case "driver", "iommu_group":
				target := filepath.Join(dir, name, value)
				must(os.MkdirAll(filepath.Join(target, "devices"), 0o755))
				must(os.Symlink(target, h.sys(address, name)))
				if name == "iommu_group" {
					must(os.Symlink(h.sys(address), filepath.Join(target, "devices", address)))
				}
			case "vfio-dev":
				must(os.MkdirAll(h.sys(address, name, value), 0o755))
			default:
				must(os.WriteFile(h.sys(address, name), []byte(value+"\n"), 0o600))
			}
		}
	}
	return h
}

const (
	ready  = "0000:05:00.0"
	cdev   = "0000:05:00.1"
	free   = "0001:06:1f.7"
	alien  = "0000:07:00.0"
	alone  = "0000:08:00.0"
	absent = "0000:09:00.0"
)

func machine(t *testing.T) Host {
	return fakeHost(t, map[string]map[string]string{
		ready: {"vendor": "0x1234", "device": "0x5650", "driver": "vfio-pci", "iommu_group": "7"},
		cdev:  {"vendor": "0x1234", "device": "0x5651", "driver": "mlx5_vfio_pci", "iommu_group": "8", "vfio-dev": "vfio3"},
		free:  {"vendor": "0x1234", "device": "0x5650", "iommu_group": "9"},
		alien: {"vendor": "0x8086", "device": "0x5650", "driver": "e1000e", "iommu_group": "7"},
		alone: {"vendor": "rubbish", "device": "0x5650", "driver": "vfio-pci"},
	})
}

func TestFind(t *testing.T) {
	h := machine(t)
	got, err := h.Find(0x1234, 0x5650)
	if want := []string{ready, free}; err != nil || !slices.Equal(got, want) {
		t.Errorf("Find = %q, %v, want %q", got, err, want)
	}
	if got, err := h.Find(0x1234, 0xffff); err != nil || len(got) != 0 {
		t.Errorf("Find of none = %q, %v", got, err)
	}
	if _, err := (Host{Sys: t.TempDir()}).Find(1, 2); err == nil {
		t.Error("Find without a PCI bus succeeded")
	}
}

// TestLookup: who cannot have a function is told what to do.
func TestLookup(t *testing.T) {
	h := machine(t)
	for _, tc := range []struct {
		address string
		want    string // part of the error
	}{
		{"05:00.0", "no PCI address"},
		{"../../../etc", "no PCI address"},
		{"0000:05:00.0/driver", "no PCI address"},
		{"0000:05:20.0", "no PCI address"},
		{"", "no PCI address"},
		{absent, "no PCI function at " + absent},
		{alone, "intel_iommu=on"},
		{free, "it has no driver, which is not vfio-pci; as root: modprobe vfio-pci; " +
			"echo vfio-pci > /sys/bus/pci/devices/0001:06:1f.7/driver_override; echo 0001:06:1f.7 > /sys/bus/pci/drivers_probe"},
		{alien, "its driver is e1000e, which is not vfio-pci; as root: modprobe vfio-pci; " +
			"echo vfio-pci > /sys/bus/pci/devices/0000:07:00.0/driver_override; " +
			"echo 0000:07:00.0 > /sys/bus/pci/devices/0000:07:00.0/driver/unbind; echo 0000:07:00.0 > /sys/bus/pci/drivers_probe"},
	} {
		if f, err := h.lookup(tc.address); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("lookup(%q) = %+v, %v, want an error with %q", tc.address, f, err, tc.want)
		}
	}
	for _, want := range []function{{ready, "7", ""}, {cdev, "8", "vfio3"}} {
		if f, err := h.lookup(want.address); err != nil || f != want {
			t.Errorf("lookup = %+v, %v, want %+v", f, err, want)
		}
	}
	if got := h.neighbours(ready); got != "0000:07:00.0 (e1000e)" {
		t.Errorf("neighbours = %q", got)
	}
}

// TestChoose: the group's interface is taken where there is one.
func TestChoose(t *testing.T) {
	h := machine(t)
	for _, tc := range []struct {
		f    function
		node string
		want Interface
	}{
		{function{group: "7"}, "", Group}, // whose node is missed, by name
		{function{group: "8", cdev: "vfio3"}, "", IOMMUFD},
		{function{group: "8", cdev: "vfio3"}, "8", Group},
	} {
		if tc.node != "" {
			if err := os.WriteFile(h.dev("vfio", tc.node), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := h.choose(tc.f); got != tc.want {
			t.Errorf("choose(%+v) with node %q = %d, want %d", tc.f, tc.node, got, tc.want)
		}
	}
}

// TestOpenErrors: what is missing below /dev is named, and nothing is left open.
func TestOpenErrors(t *testing.T) {
	h := machine(t)
	before := openFiles(t)
	open := func(address string, via Interface, want string) {
		t.Helper()
		if _, err := h.Open(address, via); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s, %d): %v, want an error with %q", address, via, err, want)
		}
	}
	open(ready, Any, h.dev("vfio", "vfio")+": no such file")
	open(ready, IOMMUFD, "no node for iommufd")
	open(cdev, Any, h.dev("vfio", "devices", "vfio3")+": no such file")
	// These are files, and so the first request fails.
	for _, node := range []string{"vfio/vfio", "vfio/7", "vfio/devices/vfio3", "iommu"} {
		if err := os.WriteFile(h.dev(node), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(ready, Any, "get version of VFIO: inappropriate ioctl")
	open(cdev, Any, "bind to iommufd: inappropriate ioctl")
	if after := openFiles(t); after != before {
		t.Errorf("%d files are open, want %d", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
