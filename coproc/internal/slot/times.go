// SPDX-License-Identifier: Apache-2.0

package slot

import "time"

// DefaultTimes fills in what a driver's configuration leaves open: the time for a
// command, which may make an RSA key, the time for it to obey a cancel, and the time for
// everything else, which may wait for a disk.
func DefaultTimes(timeout, cancelGrace, admin *time.Duration) {
	*timeout = OrDefault(*timeout, 90*time.Second)
	*cancelGrace = OrDefault(*cancelGrace, 5*time.Second)
	*admin = OrDefault(*admin, 30*time.Second)
}

// OrDefault is d, or def if d is not set.
func OrDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}
