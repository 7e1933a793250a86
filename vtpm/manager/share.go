// SPDX-License-Identifier: Apache-2.0

package manager

import "hwvtpm/vtpm/door"

// nobodys begins the keys of what is asked by channels that belong to nobody. No name
// begins so.
const nobodys = "?"

// shareOf says out of which share a caller takes what it wants for a machine. Whoever can
// reach a channel that belongs to nobody can ask there for any machine, also by sending an
// old quote of it again: that must not keep the machine's own channel waiting.
func shareOf(caller door.Caller, vm string) string {
	if caller.VM == "" {
		return nobodys + vm
	}
	return vm
}
