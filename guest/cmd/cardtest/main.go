// SPDX-License-Identifier: Apache-2.0

// Cardtest tests the driver of PCIe cards against a card of this machine,
// through the kernel's VFIO. It is a test binary with the usual flags:
//
//	cardtest -test.v [-test.run REGEXP] [-card 0000:05:00.0]
//
// It binds the card to vfio-pci, takes it for itself, and unplugs it from the
// kernel on the way. What is on the card is lost. The VM tests run it in a
// machine that was made for it, on a simulated card.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"testing"
)

var tests = []testing.InternalTest{
	{Name: "TestConformance", F: testConformance},
	{Name: "TestAccessByKernel", F: testAccessByKernel},
	{Name: "TestInterrupts", F: testInterrupts},
	{Name: "TestResetWhileRunning", F: testResetWhileRunning},
	{Name: "TestForeignAddresses", F: testForeignAddresses},
	{Name: "TestSecondDriver", F: testSecondDriver},
	{Name: "TestUnplug", F: testUnplug},
	{Name: "TestUnplugWhileRunning", F: testUnplugWhileRunning},
}

// card is the address of the card under test.
var card string

func main() {
	testing.Init()
	flag.StringVar(&card, "card", "", "PCI `address` of the card (default: the only one that there is)")
	flag.Parse()
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "cardtest:", err)
		os.Exit(1)
	}
	match := func(pat, str string) (bool, error) { return regexp.MatchString(pat, str) }
	testing.Main(match, tests, nil, nil) // exits
}
