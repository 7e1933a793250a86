// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links one path may lead over, as in the kernel.
const maxLinks = 40

// inside follows the symbolic links of name as a process would whose root folder
// is root (chroot(2)): an unpacked Debian has links to absolute paths. The result
// is a path of the host without links below root.
func inside(root, name string) (string, error) {
	at, rest, links := "/", parts(name), 0
	for len(rest) > 0 {
		next := path.Join(at, rest[0])
		rest = rest[1:]
		if next == "/" {
			at = next
			continue
		}
		target, err := os.Readlink(filepath.Join(root, next))
		if errors.Is(err, syscall.EINVAL) { // no link
			at = next
			continue
		}
		if err != nil {
			return "", err
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
		}
		if path.IsAbs(target) {
			at = "/"
		}
		rest = append(parts(target), rest...)
	}
	return filepath.Join(root, at), nil
}

// parts takes a path apart; ".." stays, since it depends on links before it.
func parts(name string) []string {
	return strings.FieldsFunc(name, func(r rune) bool { return r == '/' })
}
