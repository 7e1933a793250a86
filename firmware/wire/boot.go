// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
)

// BootID reads the kernel's name of this boot of the machine, a UUID. Volatile states
// end with it.
func BootID() (id [16]byte, err error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id, fmt.Errorf("read boot id: %w", err)
	}
	n, err := hex.Decode(id[:], bytes.ReplaceAll(b[:min(len(b), 36)], []byte("-"), nil))
	if err != nil || n != len(id) {
		return id, fmt.Errorf("boot id %q is no UUID", b)
	}
	return id, nil
}
