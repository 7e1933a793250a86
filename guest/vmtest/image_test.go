// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"os/exec"
	"path/filepath"

	"hwvtpm/guest/image"
)

// buildDriver compiles the guest's driver with all warnings.
func (b *bed) buildDriver(series, ko string) ([]byte, error) {
	cmd := exec.CommandContext(b.ctx, filepath.Join(b.Env.Top, "guest/driver/build.sh"), b.Env.Headers(series), ko, "W=1")
	return cmd.CombinedOutput()
}

// imageFor builds a guest image for a kernel that has virtio in modules.
func (b *bed) imageFor(series string) string {
	b.Helper()
	dir := b.TempDir()
	ko := filepath.Join(dir, "tpm_virtio.ko")
	if out, err := b.buildDriver(series, ko); err != nil {
		b.Fatalf("building the driver: %v\n%s", err, out)
	}
	virtio := filepath.Join(b.Env.Cache, "kernel-"+series, "modules/kernel/drivers/virtio")
	var modules []string
	for _, name := range []string{"virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"} {
		modules = append(modules, filepath.Join(virtio, name+".ko"))
	}
	plain, out := filepath.Join(dir, "plain.cpio"), filepath.Join(dir, "guest.cpio")
	_, err := image.Build(b.ctx, image.Config{
		Out:         plain,
		AgentBinary: b.Env.Program("vtpm-agent"),
		Modules:     append(modules, ko),
		SourceDir:   b.Env.Top,
		CacheDir:    filepath.Join(b.Env.Cache, "image"),
	})
	b.must("building an image", err)
	tools, err := image.TPMTools(b.Env.TPMTools())
	b.must("tpm2-tools", err)
	_, err = image.Extend(out, plain, tools)
	b.must("adding tpm2-tools", err)
	return out
}
