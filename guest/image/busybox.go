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

const uroot = "github.com/u-root/u-root"

// commands are u-root's commands in the busybox, below cmds/core. tools.go
// imports them, too, so that go.mod provides what they need.
var commands = []string{
	"init", "gosh",
	"cat", "chmod", "cp", "date", "dd", "dmesg", "echo", "find", "free", "grep",
	"head", "hexdump", "insmod", "kill", "ln", "ls", "lsmod", "mkdir", "mknod",
	"mount", "mv", "ps", "readlink", "rm", "rmmod", "sleep", "sort", "stty",
	"sync", "tail", "tee", "touch", "umount", "uname", "uptime", "wc",
}

// busybox returns the archive of u-root's part, from the cache if it is there.
func busybox(ctx context.Context, cfg Config) (*cpio.Archive, error) {
	key, err := busyboxKey(ctx, cfg.SourceDir)
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
	if err := compile(work, cfg.SourceDir, made); err != nil {
		return nil, err
	}
	if err := os.Rename(made, cached); err != nil {
		return nil, err
	}
	return readArchive(cached)
}

// busyboxKey names all that the busybox depends on.
func busyboxKey(ctx context.Context, sourceDir string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Path}} {{.Version}}",
		uroot, "github.com/u-root/mkuimage", "github.com/u-root/gobusybox/src")
	cmd.Dir = sourceDir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	versions, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	h := sha256.New()
	fmt.Fprintf(h, "1 %s %s\n%s%s", runtime.Version(), runtime.GOARCH, versions, strings.Join(commands, " "))
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func compile(work, sourceDir, out string) error {
	packages := make([]string, len(commands))
	for i, c := range commands {
		packages[i] = uroot + "/cmds/core/" + c
	}
	return uimage.Create(llog.Default(),
		uimage.WithEnv(golang.DisableCGO(), golang.WithWorkingDir(sourceDir)),
		uimage.WithTempDir(work),
		uimage.WithBaseArchive(uimage.DefaultRamfs()),
		uimage.WithBusyboxCommands(packages...),
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
