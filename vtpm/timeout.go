// SPDX-License-Identifier: Apache-2.0

package vtpm

import "time"

// Command codes that may search for primes or test every algorithm (TCG Part
// 2, section 6.5.2). On a slow or busy host they need minutes, not seconds.
var slowCommands = map[uint32]bool{
	0x131: true, // TPM2_CreatePrimary
	0x153: true, // TPM2_Create
	0x191: true, // TPM2_CreateLoaded
	0x143: true, // TPM2_SelfTest
	0x142: true, // TPM2_IncrementalSelfTest
}

// Deadlines after which a command is cancelled and, if that does not help, its
// engine restarted. They only guard against a hang: the Linux driver waits
// 120 s for most commands and 300 s for those that create keys.
const (
	defaultTimeout = 60 * time.Second
	slowTimeout    = 240 * time.Second
)

// CommandTimeout is the time to give the TPM command code before it counts as
// hung.
func CommandTimeout(code uint32) time.Duration {
	if slowCommands[code] {
		return slowTimeout
	}
	return defaultTimeout
}
