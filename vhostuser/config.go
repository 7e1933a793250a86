// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/virtqueue"
)

// Config is what a Server needs. Only Device is required.
type Config struct {
	// Device is served to one front-end after the other.
	Device Device

	// Logger gets session events, failed requests (a bounded number per
	// session) and broken rings, never single requests of the guest. Nil: none.
	Logger hclog.Logger

	// OnConnect is called with the kernel's word on who connected, when the
	// first message has come and before it is answered. An error refuses the
	// connection. ctx ends with the server.
	OnConnect func(ctx context.Context, p Peer) error

	// OnDisconnect is called when a session that OnConnect accepted is over
	// and all its rings have stopped. err is nil if the front-end hung up
	// between two messages.
	OnDisconnect func(err error)

	// StopGrace is how long a stopping ring waits for the Handle in flight
	// before it calls Device.Interrupt. The front-end waits meanwhile: QEMU
	// with all its vCPUs. Default 1 s.
	StopGrace time.Duration

	// Features is a mask over the virtio features that are offered, with
	// which a feature can be withheld. 0: no mask.
	Features uint64

	// ProtocolFeatures is the same for protocol features. 0: no mask.
	ProtocolFeatures uint64

	// MaxQueueSize bounds the size of a ring, 1 to 32768. Default 1024, the
	// most QEMU allows.
	MaxQueueSize int
}

const (
	defaultStopGrace    = time.Second
	defaultMaxQueueSize = 1024
)

// deviceFeatures are the bits that belong to the device type.
const deviceFeatures = 1<<24 - 1

// transportFeatures is what this package and virtqueue can do.
const transportFeatures uint64 = 1<<virtqueue.FeatureIndirectDesc | 1<<virtqueue.FeatureEventIdx |
	1<<virtqueue.FeatureVersion1 | 1<<virtqueue.FeatureRingPacked |
	1<<FeatureLogAll | 1<<FeatureProtocolFeatures

// withDefaults validates c and fills in what was left open.
func (c Config) withDefaults() (Config, error) {
	if c.Device == nil {
		return c, errors.New("vhost-user: config without device")
	}
	if n := c.Device.QueueCount(); n < 1 || n > maxQueues {
		return c, fmt.Errorf("vhost-user: device with %d queues, want 1 to %d", n, maxQueues)
	}
	if c.MaxQueueSize < 0 || c.MaxQueueSize > virtqueue.MaxSize {
		return c, fmt.Errorf("vhost-user: maximal queue size %d, want 1 to %d", c.MaxQueueSize, virtqueue.MaxSize)
	}
	if c.MaxQueueSize == 0 {
		c.MaxQueueSize = defaultMaxQueueSize
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.StopGrace <= 0 {
		c.StopGrace = defaultStopGrace
	}
	if c.Features == 0 {
		c.Features = ^uint64(0)
	}
	if c.ProtocolFeatures == 0 {
		c.ProtocolFeatures = ^uint64(0)
	}
	return c, nil
}

func (c *Config) offeredFeatures() uint64 {
	return (c.Device.Features()&deviceFeatures | transportFeatures) & c.Features
}

func (c *Config) offeredProtocol() uint64 { return supportedProtocol & c.ProtocolFeatures }
