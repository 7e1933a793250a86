// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"strings"
	"testing"
)

// TestVFIOErrors: an error names the function and what is wrong. The rest of
// the transport is tested in a virtual machine, by guest/cmd/cardtest.
func TestVFIOErrors(t *testing.T) {
	for _, tc := range []struct{ address, want string }{
		{"05:00.0", `PCI function 05:00.0: "05:00.0" is no PCI address`},
		{"", "is no PCI address"},
		{"ffff:ff:1f.7", "there is no PCI function at ffff:ff:1f.7"},
	} {
		for _, iface := range []VFIOInterface{VFIOAny, VFIOGroup, VFIOIOMMUFD} {
			ended := func() { t.Error("onEnd was called for what never began") }
			open := VFIOWith(tc.address, VFIOOptions{Interface: iface})
			if _, err := open(ended); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("VFIOWith(%q, %d): %v, want an error with %q", tc.address, iface, err, tc.want)
			}
		}
		if c, err := Open(Config{Open: VFIO(tc.address)}); err == nil {
			c.Close()
			t.Errorf("Open at %q succeeded", tc.address)
		}
	}
}
