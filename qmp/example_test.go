// SPDX-License-Identifier: Apache-2.0

package qmp_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"hwvtpm/qmp"
)

// A management program resets a VM and waits until that has happened.
func ExampleDial() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := qmp.Dial(ctx, "/run/vm1/qmp.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	resets := c.Subscribe(qmp.EventReset) // before the command that causes it
	defer resets.Close()
	if err := c.SystemReset(ctx); err != nil {
		log.Fatal(err)
	}
	e, err := resets.Next(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("reset:", e.Data["reason"])
}

// A vhost-user back-end decides, while QEMU waits for it, whether the VM was
// reset since it last looked.
func ExampleClient_Drain() {
	c, err := qmp.Dial(context.Background(), "/run/vm1/qmp.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	resets := c.Subscribe(qmp.EventReset)

	wasReset := func() bool {
		reset := c.Drain() != nil // no monitor, no proof: assume the worst
		for {
			if _, more := resets.TryNext(); !more {
				break
			}
			reset = true // firmware may reset twice: a flag, not a count
		}
		return resets.Overflowed() || reset
	}
	fmt.Println("reset:", wasReset())
}

// An operator's tool gives a VM a new back-end after the old one has died.
func ExampleClient_ReplaceVhostUser() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := qmp.Dial(ctx, "/run/vm1/qmp.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	err = c.ReplaceVhostUser(ctx, qmp.VhostUserSpec{
		DeviceID:  "vtpm0",
		ChardevID: "vtpm0-char",
		Socket:    "/run/vm1/vtpm-new.sock",
		Device: map[string]any{
			"driver": "vhost-user-test-device-pci", "bus": "rp0",
			"virtio-id": 38, "num_vqs": 1, "config_size": 8,
		},
	})
	if err != nil {
		log.Fatal(err)
	}
}

// Any command can be sent; a refusal tells its class.
func ExampleClient_Execute() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := qmp.Dial(ctx, "/run/vm1/qmp.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	var machines []struct {
		Name string `json:"name"`
	}
	err = c.Execute(ctx, qmp.Command{Execute: "query-machines"}, &machines)
	if refused, ok := errors.AsType[*qmp.Error](err); ok {
		fmt.Println("refused:", refused.Class, refused.Desc)
	}
}
