// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"fmt"
)

// rule is what must hold for a command before its handler sees it: syntax
// only. What the numbers in it mean is the handler's business.
type rule struct {
	name           string
	minLen, maxLen int // payload bytes
	maxFDs         int // descriptors
}

// guards is the one table of legal commands. A command that is missing here is
// unknown. No reply may carry descriptors, since no region is mapped.
var guards = map[Command]rule{
	CmdVersion:       {name: "VERSION", minLen: versionSize, maxLen: versionSize + MaxTransfer},
	CmdDMAMap:        {name: "DMA_MAP", minLen: mapSize, maxLen: mapSize, maxFDs: 1},
	CmdDMAUnmap:      {name: "DMA_UNMAP", minLen: unmapSize, maxLen: unmapSize},
	CmdGetInfo:       {name: "DEVICE_GET_INFO", minLen: deviceInfoSize, maxLen: deviceInfoSize},
	CmdGetRegionInfo: {name: "DEVICE_GET_REGION_INFO", minLen: regionInfoSize, maxLen: regionInfoSize},
	CmdGetIRQInfo:    {name: "DEVICE_GET_IRQ_INFO", minLen: irqInfoSize, maxLen: irqInfoSize},
	CmdSetIRQs:       {name: "DEVICE_SET_IRQS", minLen: irqSetSize, maxLen: irqSetSize + MaxTransfer, maxFDs: maxFDs},
	CmdRegionRead:    {name: "REGION_READ", minLen: accessSize, maxLen: accessSize},
	CmdRegionWrite:   {name: "REGION_WRITE", minLen: accessSize + 1, maxLen: accessSize + MaxTransfer},
	CmdReset:         {name: "DEVICE_RESET"},
}

var errUnknown = errors.New("unknown command")

// check applies the rule for a command.
func check(m *message) error {
	r, ok := guards[m.command]
	switch {
	case !ok:
		return fmt.Errorf("%v: %w", m.command, errUnknown)
	case len(m.body) < r.minLen || len(m.body) > r.maxLen:
		return fmt.Errorf("payload of %d bytes, want %d to %d: %w", len(m.body), r.minLen, r.maxLen, ErrProtocol)
	case len(m.fds) > r.maxFDs:
		return fmt.Errorf("%d descriptors, want at most %d: %w", len(m.fds), r.maxFDs, ErrProtocol)
	}
	return nil
}
