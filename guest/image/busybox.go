// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/u-root/gobusybox/src/pkg/golang"
	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/uimage"
	"github.com/u-root/uio/llog"
)

// urootModule is the folder, in hwvtpm's module, of the module that lists
// u-root's commands and pins their version.
const urootModule = "guest/image/uroot"

// busybox returns the archive of u-root's part, from the cache if it is there.
func busybox(ctx context.Context, cfg Config) (*cpio.Archive, error) {
	builder, err := goList(ctx, cfg.SourceDir, "-m", "-f", "{{.Path}} {{.Version}}",
		"github.com/u-root/mkuimage", "github.com/u-root/gobusybox/src")
	if err != nil {
		return nil, err
	}
	top, err := goList(ctx, cfg.SourceDir, "-m", "-f", "{{.Dir}}", "hwvtpm")
	if err != nil {
		return nil, err
	}
	source := filepath.Join(top[0], urootModule)
	key, err := busyboxKey(source, builder)
	if err != nil {
		return nil, err
	}
	cached := filepath.Join(cfg.CacheDir, "busybox-"+key+".cpio")
	if a, err := readArchive(cached); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return a, err
	}
	cfg.Logger.Info("compiling u-root's commands; this takes a while the first time")
	if err := os.MkdirAll(cfg.CacheDir, 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(cfg.CacheDir, "build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	made := filepath.Join(work, "busybox.cpio")
	// The tag: see the package that lists the commands. -e: go list says that
	// they cannot be imported, which is why there is the tag.
	commands, err := goList(ctx, source, "-e", "-tags=tools", "-f", `{{join .Imports "\n"}}`, ".")
	if err != nil {
		return nil, err
	}
	if err := compile(work, source, made, commands); err != nil {
		return nil, err
	}
	if err := os.Rename(made, cached); err != nil {
		return nil, err
	}
	return readArchive(cached)
}

// busyboxKey names all that the busybox depends on.
func busyboxKey(source string, builder []string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOARCH, builder)
	for _, name := range []string{"commands.go", "go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(b), b)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// goList runs go list in a folder and returns the lines of its output.
func goList(ctx context.Context, dir string, args ...string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list"}, args...)...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list in %s: %w: %s", dir, err, bytes.TrimSpace(stderr.Bytes()))
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if lines[0] == "" {
		return nil, fmt.Errorf("go list in %s: nothing", dir)
	}
	return lines, nil
}

func compile(work, source, out string, commands []string) error {
	return uimage.Create(llog.Default(),
		uimage.WithEnv(golang.DisableCGO(), golang.WithWorkingDir(source)),
		uimage.WithTempDir(work),
		uimage.WithBaseArchive(uimage.DefaultRamfs()),
		uimage.WithBusyboxCommands(commands...),
		uimage.WithInit("init"),
		uimage.WithShell("gosh"),
		uimage.WithCPIOOutput(out),
	)
}

func readArchive(name string) (*cpio.Archive, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	a, err := cpio.ArchiveFromReader(cpio.Newc.Reader(bytes.NewReader(b)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return a, nil
}
