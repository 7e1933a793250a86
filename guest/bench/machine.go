// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"hwvtpm/guest/lab"
)

// Machine is what the figures depend on. It names no host and no path.
type Machine struct {
	CPU         string `json:"cpu"`
	CPUs        int    `json:"cpus"`
	Virtual     bool   `json:"virtual"` // this machine is itself a guest
	Kernel      string `json:"kernel"`
	Go          string `json:"go"`
	QEMU        string `json:"qemu,omitempty"`
	Accelerator string `json:"accelerator,omitempty"` // of the guests
	Libtpms     string `json:"libtpms"`
	Swtpm       string `json:"swtpm"`
	Revision    string `json:"revision"` // of this project
}

// describe asks the machine and its programs. QEMU is left out if the guest
// part does not run.
func describe(ctx context.Context, env *lab.Env, guest bool) (Machine, error) {
	m := Machine{CPUs: runtime.NumCPU(), Go: strings.TrimPrefix(runtime.Version(), "go")}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, fmt.Errorf("bench: %w", err)
	}
	m.CPU = field(string(info), "model name")
	m.Virtual = slices.Contains(strings.Fields(field(string(info), "flags")), "hypervisor")
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return m, fmt.Errorf("bench: uname: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(uts.Release[:])
	m.Swtpm = version(ctx, "swtpm", "--version")
	m.Libtpms = version(ctx, "dpkg-query", "-W", "-f", "${Version}", "libtpms0")
	m.Revision = version(ctx, "git", "-C", env.Top, "describe", "--always")
	if guest {
		m.QEMU = version(ctx, env.QEMU(), "--version")
		m.Accelerator = string(env.Accel)
	}
	return m, nil
}

// field is the value of the first line "name : value".
func field(text, name string) string {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

var versionWord = regexp.MustCompile(`version (\S+?),?(\s|$)`)

// version is what a program says of its version; "unknown" if it does not.
func version(ctx context.Context, argv ...string) string {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil || first == "" {
		return "unknown"
	}
	if m := versionWord.FindStringSubmatch(first); m != nil {
		return m[1]
	}
	return first
}
