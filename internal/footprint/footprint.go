// SPDX-License-Identifier: Apache-2.0

package footprint

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settled is how long a start takes, with the coming of the virtual machine that
// the program was started for. Nothing but memory depends on it.
const settled = 500 * time.Millisecond

// TrimLater gives memory back when the start is over, and is not in its way. Failure
// changes nothing, and is not told. What it returns may be stopped.
func TrimLater() *time.Timer { return time.AfterFunc(settled, func() { _ = trim() }) }

// trim leaves the heap alone. There is little garbage after a start, and what the
// first garbage collection needs for itself is more.
func trim() error {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("own mappings: %w", err)
	}
	defer f.Close()
	clean, err := cleanMappings(f)
	if err != nil {
		return err
	}
	for _, m := range clean {
		// The mapping is the file's, page by page, so nothing is lost.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("give back mapping: %w", errno)
		}
	}
	return nil
}

// mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// cleanMappings finds, in the form of /proc/PID/smaps (proc(5)), the private
// mappings of files that cannot be written to and that have no page of their own.
// A page of its own would be gone for good: relocations are such.
func cleanMappings(smaps io.Reader) ([]mapping, error) {
	var all []mapping
	var m mapping
	ours := false
	for sc := bufio.NewScanner(smaps); ; {
		if !sc.Scan() {
			if err := sc.Err(); err != nil {
				return nil, fmt.Errorf("own mappings: %w", err)
			}
			return all, nil
		}
		line := sc.Bytes()
		if key, value, ok := bytes.Cut(line, []byte(":")); ok && !bytes.ContainsRune(key, '-') {
			if ours && string(key) == "Anonymous" && strings.TrimSpace(string(value)) == "0 kB" {
				all = append(all, m)
			}
			continue
		}
		f := strings.Fields(string(line))
		ours = len(f) == 6 && f[5][0] == '/' && strings.HasPrefix(f[1], "r-") && strings.HasSuffix(f[1], "p")
		if ours {
			if _, err := fmt.Sscanf(f[0], "%x-%x", &m.start, &m.end); err != nil {
				return nil, fmt.Errorf("own mappings: %q: %w", f[0], err)
			}
		}
	}
}
