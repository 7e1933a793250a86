// SPDX-License-Identifier: Apache-2.0

// Cardtest tests the driver of PCIe cards against a card of this machine,
// through the kernel's VFIO. It is a test binary with the usual flags:
//
//	cardtest -test.v [-test.run REGEXP] [-card 0000:05:00.0] [-interface iommufd]
//
// It binds the card to vfio-pci, takes it for itself, and unplugs it from the
// kernel on the way. What is on the card is lost. The VM tests run it in a
// machine that was made for it, on a simulated card.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"testing"

	"hwvtpm/coproc/pcie"
)

var tests = []testing.InternalTest{
	{Name: "TestConformance", F: testConformance},
	{Name: "TestAccessByKernel", F: testAccessByKernel},
	{Name: "TestInterrupts", F: testInterrupts},
	{Name: "TestResetWhileRunning", F: testResetWhileRunning},
	{Name: "TestForeignAddresses", F: testForeignAddresses},
	{Name: "TestSecondDriver", F: testSecondDriver},
	{Name: "TestBackend", F: testBackend},
	{Name: "TestUnplug", F: testUnplug},
	{Name: "TestUnplugWhileRunning", F: testUnplugWhileRunning},
}

var (
	card  string // address of the card under test
	iface pcie.VFIOInterface
)

var interfaces = map[string]pcie.VFIOInterface{"any": pcie.VFIOAny, "group": pcie.VFIOGroup, "iommufd": pcie.VFIOIOMMUFD}

// viaKernel opens the card as the command line has it.
func viaKernel() pcie.Opener {
	return pcie.VFIOWith(card, pcie.VFIOOptions{Interface: iface})
}

func main() {
	testing.Init()
	flag.StringVar(&card, "card", "", "PCI `address` of the card (default: the only one that there is)")
	flag.Func("interface", "`name` of VFIO's interface: any, group, iommufd (default any)", func(name string) error {
		var ok bool
		if iface, ok = interfaces[name]; !ok {
			return errors.New("there is no such interface")
		}
		return nil
	})
	flag.Parse()
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "cardtest:", err)
		os.Exit(1)
	}
	match := func(pat, str string) (bool, error) { return regexp.MatchString(pat, str) }
	testing.Main(match, tests, nil, nil) // exits
}
