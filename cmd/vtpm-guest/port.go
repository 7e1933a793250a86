// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// portLinks is where udev names virtio-serial ports. The number in a port's device is
// that of its virtio device among all, so without udev the kernel has to be asked.
const portLinks = "/dev/virtio-ports/"

// openPort opens a virtio-serial port, also one that is called by a name where nobody
// made the link.
func openPort(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	name, named := strings.CutPrefix(path, portLinks)
	if !errors.Is(err, fs.ErrNotExist) || !named {
		return f, err
	}
	device, found := portNamed(os.DirFS("/sys/class/virtio-ports"), name)
	if !found {
		return nil, err
	}
	return os.OpenFile(filepath.Join("/dev", device), os.O_RDWR, 0)
}

// portNamed finds the port of a name among those of the kernel.
func portNamed(ports fs.FS, name string) (device string, found bool) {
	all, err := fs.Glob(ports, "*/name")
	if err != nil {
		return "", false
	}
	for _, path := range all {
		text, err := fs.ReadFile(ports, path)
		if err == nil && strings.TrimSuffix(string(text), "\n") == name {
			return filepath.Dir(path), true
		}
	}
	return "", false
}
