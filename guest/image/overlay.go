// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/u-root/mkuimage/cpio"
)

// Overlay is what a second archive adds to an image. Both maps begin with paths in
// the guest.
type Overlay struct {
	Files map[string]string // to paths on the host, such as from Programs
	Links map[string]string // to targets of symbolic links
}

// archiveUnit is what the kernel wants an archive to start at, and more.
const archiveUnit = 512

// Extend makes sure that out is the image base with the overlay behind it as an
// archive of its own: the kernel unpacks one after the other, and later files
// replace earlier ones. It is cached and replaced as Build's images are.
func Extend(out, base string, o Overlay) (Result, error) {
	image, err := os.ReadFile(base)
	if err != nil {
		return Result{}, fmt.Errorf("image: %w", err)
	}
	var f files
	for guest, host := range o.Files {
		f.add(guest, host)
	}
	for guest, target := range o.Links {
		f.symlink(relative(guest), target)
	}
	records, err := f.sorted()
	if err != nil {
		return Result{}, fmt.Errorf("image: %w", err)
	}
	more, err := archive(cpio.InMemArchive(), records)
	if err != nil {
		return Result{}, fmt.Errorf("image: %w", err)
	}
	image = append(image, bytes.Repeat([]byte{0}, -len(image)&(archiveUnit-1))...)
	r, err := store(out, append(image, more...))
	if err != nil {
		return Result{}, fmt.Errorf("image: %w", err)
	}
	return r, nil
}

// Where Debian's tpm2-tools and tpm2-tss are. tpm2_getrandom and its like are
// symbolic links to tpm2. The TCTI is opened at run time, so no program names
// it as a library that it needs.
const (
	tpm2Program = "/usr/bin/tpm2"
	tpm2Links   = "/usr/bin/tpm2_*"
	tpm2TCTI    = "/usr/lib/*-linux-gnu/libtss2-tcti-device.so.0"
)

// TPMTools are the tpm2-tools of an unpacked Debian, or of "/", which find the
// guest's own TPM.
func TPMTools(root string) (Overlay, error) {
	programs, links := map[string]string{}, map[string]string{}
	tcti, err := filepath.Glob(filepath.Join(root, tpm2TCTI))
	if err != nil || len(tcti) == 0 {
		return Overlay{}, fmt.Errorf("image: %s has no %s (package libtss2-tcti-device0)", root, path.Base(tpm2TCTI))
	}
	for _, host := range append(tcti, filepath.Join(root, tpm2Program)) {
		guest := strings.TrimPrefix(host, strings.TrimSuffix(root, "/"))
		programs[guest] = host
	}
	names, err := filepath.Glob(filepath.Join(root, tpm2Links))
	if err != nil {
		return Overlay{}, fmt.Errorf("image: %w", err)
	}
	for _, name := range names {
		if target, err := os.Readlink(name); err == nil && target == path.Base(tpm2Program) {
			links[path.Join(path.Dir(tpm2Program), path.Base(name))] = target
		}
	}
	all, err := Programs([]string{root}, programs)
	return Overlay{Files: all, Links: links}, err
}
