// SPDX-License-Identifier: Apache-2.0

package firmware

import "errors"

// storage is where a slot's state is kept: a directory of its own (stateDir), or
// whatever the card makes of it (supervised). It is not trusted: what it gives is
// hostile until a seal proves it, and it gets nothing secret in clear.
type storage interface {
	// image gives an empty buffer with room for a sealed permanent state. What
	// is made in it is good until the next call.
	image() []byte

	// replace makes a sealed permanent state the one that a next worker finds:
	// all of it or none, durable on return. With an error that is not errUnsure
	// the state before it is untouched.
	replace(blob []byte) error

	// goBack permits the next replace to be of a state whose content is older
	// than what it replaces. It is ErrRollback, with what to do about it, unless
	// an administrator has permitted that, which is good once.
	goBack() error

	// mapVolatile maps the volatile file that is there, which has volSize
	// bytes. If there is none, or none of that size, the error is errCorrupt.
	mapVolatile() ([]byte, error)

	// freshVolatile maps a volatile file in which no checkpoint counts.
	// Whatever was there is gone. Earlier mappings are not used any more.
	freshVolatile() ([]byte, error)

	// bootID names the machine's boot, with which what is mapped ends.
	bootID() [16]byte

	// close lets go of everything but the mappings.
	close()
}

// errUnsure marks a failure after which the new state may or may not be the
// one on disk.
var errUnsure = errors.New("new state is in place but not known durable")
