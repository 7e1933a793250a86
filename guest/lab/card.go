// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"time"
)

// Card is a running coprocd that is a PCI function, for one machine.
type Card struct {
	socket string
	*process
}

// StartCard starts a card with nothing on it and returns when it listens.
func (r *Rig) StartCard(ctx context.Context) (*Card, error) {
	c := &Card{socket: r.path("card")}
	var err error
	c.process, err = startProcess("coprocd", r.log("coprocd"), nil, r.Env.Program("coprocd"),
		"--vfio-user", c.socket, "--store", filepath.Join(r.dir, "card"),
		"--engine", r.Env.Program("hwvtpm-engine"), "--worker-uid", "-1") // other users may not get at the program
	if err != nil {
		return nil, err
	}
	r.own(c)
	ctx, cancel := context.WithTimeout(ctx, r.Env.Patience(10*time.Second))
	defer cancel()
	return c, c.reach(ctx, func() error {
		conn, err := net.Dial("unix", c.socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// Options is QEMU's command line for a machine with the card behind a virtual
// IOMMU, so that its guest can hand the card to a process. Without caching-mode
// QEMU would not notice what the guest maps; the IOMMU remaps interrupts only
// beside an interrupt controller that is split. The guest's kernel needs
// intel_iommu=on.
func (c *Card) Options() []string {
	return []string{
		"-machine", "kernel-irqchip=split",
		"-device", "intel-iommu,intremap=on,caching-mode=on",
		"-device", fmt.Sprintf(`{"driver":"vfio-user-pci","id":"card","addr":"05.0","socket":{"type":"unix","path":%q}}`, c.socket),
	}
}

// Alive says whether the card's process runs.
func (c *Card) Alive() bool { return c.alive() }

// Close ends the card in order.
func (c *Card) Close() error {
	c.end(endGrace)
	return nil
}
