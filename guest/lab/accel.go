// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Accel is what runs the guest's instructions.
type Accel string

// The accelerators of QEMU that the lab uses.
const (
	TCG Accel = "tcg" // emulation in software, everywhere
	KVM Accel = "kvm" // the processor's own virtualization
)

// slowness is how much longer than on KVM anything may take.
func (a Accel) slowness() time.Duration {
	if a == KVM {
		return 1
	}
	return 4
}

// cpu is the processor model to ask QEMU for.
func (a Accel) cpu() string {
	if a == KVM {
		return "host"
	}
	return "max"
}

// chooseAccel takes KVM only where it is sure to be good: /dev/kvm also exists
// on machines whose processor offers no virtualization, and stock kernels die or
// crawl there.
func chooseAccel() (Accel, error) {
	switch a := os.Getenv("HWVTPM_ACCEL"); a {
	case "":
	case string(TCG), string(KVM):
		return Accel(a), nil
	default:
		return "", fmt.Errorf("lab: HWVTPM_ACCEL=%q is not tcg or kvm", a)
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !hasVirtualization(string(info)) {
		return TCG, nil
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return TCG, nil
	}
	return KVM, kvm.Close()
}

// hasVirtualization looks for Intel's vmx or AMD's svm among the flags.
func hasVirtualization(cpuinfo string) bool {
	for line := range strings.Lines(cpuinfo) {
		name, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		flags := strings.Fields(value)
		return slices.Contains(flags, "vmx") || slices.Contains(flags, "svm")
	}
	return false
}
