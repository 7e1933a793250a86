// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/u-root/u-root/pkg/kmodule"
	"golang.org/x/sys/unix"

	"hwvtpm/guest/agent"
)

const virtioBus = "/sys/bus/virtio"

// loadModules loads the modules named in the list file, one path a line, in
// order. As modprobe does, it takes parameters from the kernel's command line
// (tpm_virtio.layout=plain); hwvtpm.noload=NAME,NAME leaves modules out. A
// module that fails is reported, not fatal: the host decides.
func loadModules(list, cmdline string) ([]agent.ModuleStatus, error) {
	paths, err := os.ReadFile(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	kernel, err := os.ReadFile(cmdline)
	if err != nil {
		return nil, err
	}
	var status []agent.ModuleStatus
	for path := range strings.FieldsSeq(string(paths)) {
		name := moduleName(path)
		params, skip := moduleParams(string(kernel), name)
		if skip {
			continue
		}
		s := agent.ModuleStatus{Name: name}
		if err := insmod(path, params); err != nil {
			s.Error = err.Error()
		}
		status = append(status, s)
	}
	return status, nil
}

// moduleName is the kernel's name of the module in a file.
func moduleName(path string) string {
	base, _, _ := strings.Cut(filepath.Base(path), ".")
	return strings.ReplaceAll(base, "-", "_")
}

// moduleParams picks what the kernel's command line says about a module.
func moduleParams(cmdline, name string) (params string, skip bool) {
	var found []string
	for word := range strings.FieldsSeq(cmdline) {
		key, value, _ := strings.Cut(word, "=")
		if key == "hwvtpm.noload" && slices.Contains(strings.Split(value, ","), name) {
			return "", true
		}
		if p, ok := strings.CutPrefix(word, name+"."); ok {
			found = append(found, p)
		}
	}
	return strings.Join(found, " "), false
}

func insmod(path, params string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := kmodule.FileInit(f, params, 0); err != nil {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}

func loadDriver(_ context.Context, a agent.DriverArgs) (none, error) {
	return none{}, insmod(a.Path, a.Params)
}

func unloadDriver(_ context.Context, a agent.DriverArgs) (none, error) {
	if err := kmodule.Delete(a.Name, unix.O_NONBLOCK); err != nil {
		return none{}, fmt.Errorf("unload %s: %w", a.Name, err)
	}
	return none{}, nil
}

// bindTo writes a device's name into its driver's file of that name.
func bindTo(file string) func(context.Context, agent.BindArgs) (none, error) {
	return func(_ context.Context, a agent.BindArgs) (none, error) {
		path := filepath.Join(virtioBus, "drivers", filepath.Base(a.Driver), file)
		return none{}, os.WriteFile(path, []byte(a.Device), 0)
	}
}

func virtioDevices(context.Context, none) ([]agent.VirtioDevice, error) {
	entries, err := os.ReadDir(filepath.Join(virtioBus, "devices"))
	if err != nil {
		return nil, err
	}
	devices := make([]agent.VirtioDevice, 0, len(entries))
	for _, e := range entries {
		dir := filepath.Join(virtioBus, "devices", e.Name())
		d := agent.VirtioDevice{
			Name:     e.Name(),
			ID:       sysfsHex(dir, "device"),
			Status:   sysfsHex(dir, "status"),
			Features: string(sysfs(dir, "features")),
		}
		if link, err := os.Readlink(filepath.Join(dir, "driver")); err == nil {
			d.Driver = filepath.Base(link)
		}
		devices = append(devices, d)
	}
	return devices, nil
}

// sysfs reads one attribute; one that is not there is empty.
func sysfs(dir, name string) []byte {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil
	}
	return bytes.TrimSpace(b)
}

// sysfsHex reads a number such as 0x0026; one that is not there is -1.
func sysfsHex(dir, name string) int {
	n, err := strconv.ParseUint(string(sysfs(dir, name)), 0, 32)
	if err != nil {
		return -1
	}
	return int(n)
}
