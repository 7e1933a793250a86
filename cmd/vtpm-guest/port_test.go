// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"
)

func TestPortNamed(t *testing.T) {
	ports := fstest.MapFS{
		"vport0p0/dev":  {Data: []byte("250:0\n")},
		"vport0p1/name": {Data: []byte("org.qemu.guest_agent.0\n")},
		"vport2p1/name": {Data: []byte("org.hwvtpm.door.0\n")},
	}
	for name, want := range map[string]string{
		"org.hwvtpm.door.0": "vport2p1", "org.qemu.guest_agent.0": "vport0p1", "org.hwvtpm.door": "", "": "",
	} {
		if got, found := portNamed(ports, name); got != want || found != (want != "") {
			t.Errorf("portNamed(%q) = %q, %v, want %q", name, got, found, want)
		}
	}
	if _, found := portNamed(fstest.MapFS{}, "org.hwvtpm.door.0"); found {
		t.Error("a machine without ports has one")
	}
}

// What is not there is said to be so by the name that it was asked for by.
func TestOpenPortThatIsNot(t *testing.T) {
	for _, path := range []string{portLinks + "no.such.port.0", "/dev/no-such-vport0p1"} {
		_, err := openPort(path)
		if bad, ok := errors.AsType[*fs.PathError](err); !ok || bad.Path != path || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("openPort(%s): %v", path, err)
		}
	}
}
