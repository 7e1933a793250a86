// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// dropStartup gives back the pages of this program's file that only its start
// needed: a third of its footprint, and there is one process for each virtual
// machine. Pages that are used again come back from the page cache.
func dropStartup() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("own program: %w", err)
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("own mappings: %w", err)
	}
	defer f.Close()
	clean, err := cleanMappings(f, exe)
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

// cleanMappings finds, in the form of /proc/PID/smaps, the private mappings of a
// file that cannot be written to and that have no page of their own. A page of
// its own would be gone for good: relocations are such.
func cleanMappings(smaps io.Reader, file string) ([]mapping, error) {
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
		ours = len(f) == 6 && f[5] == file && strings.HasPrefix(f[1], "r-") && strings.HasSuffix(f[1], "p")
		if ours {
			if _, err := fmt.Sscanf(f[0], "%x-%x", &m.start, &m.end); err != nil {
				return nil, fmt.Errorf("own mappings: %q: %w", f[0], err)
			}
		}
	}
}
