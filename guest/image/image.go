// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/u-root/mkuimage/cpio"
)

// Places inside the image.
const (
	agentPath  = "bin/vtpm-agent"
	uinitPath  = "bin/uinit" // what u-root's init runs
	moduleDir  = "lib/hwvtpm"
	moduleList = "etc/hwvtpm/modules" // read by the agent
)

// Config says what goes into an image.
type Config struct {
	// Out is the file to write. Its hash goes to Out + ".sum".
	Out string
	// AgentBinary is the static vtpm-agent program of the host's file system.
	AgentBinary string
	// Modules are kernel modules (.ko or .ko.xz), which the agent loads at boot
	// in this order.
	Modules []string
	// Files are further files: path in the guest -> path on the host. Programs
	// bring the host's shared libraries (see Programs). The mode is the host
	// file's.
	Files map[string]string
	// SourceDir is any folder of hwvtpm's source tree: u-root's commands are
	// compiled from there. Default: the working directory.
	SourceDir string
	// CacheDir keeps compiled busyboxes. Default: hwvtpm/image in the user's
	// cache folder.
	CacheDir string
	// Logger is told what takes long. Default: none.
	Logger hclog.Logger
}

// Result describes the image.
type Result struct {
	Hash   string // of everything in it, in hex
	Cached bool   // Out was up to date and was not written
}

// Build makes sure that cfg.Out is the image that cfg describes. Builds of the
// same Out at the same time are safe: the file is replaced in one step.
func Build(ctx context.Context, cfg Config) (Result, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Result{}, err
	}
	base, err := busybox(ctx, cfg)
	if err != nil {
		return Result{}, fmt.Errorf("image: u-root: %w", err)
	}
	extra, err := records(cfg)
	if err != nil {
		return Result{}, fmt.Errorf("image: %w", err)
	}
	r, err := write(cfg.Out, base, extra)
	if err != nil {
		return Result{}, fmt.Errorf("image: %w", err)
	}
	return r, nil
}

func (cfg Config) withDefaults() (Config, error) {
	if cfg.Out == "" || cfg.AgentBinary == "" {
		return cfg, errors.New("image: Out and AgentBinary must be set")
	}
	if cfg.SourceDir == "" {
		cfg.SourceDir = "."
	}
	if cfg.CacheDir == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return cfg, fmt.Errorf("image: %w", err)
		}
		cfg.CacheDir = filepath.Join(dir, "hwvtpm", "image")
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	return cfg, nil
}

// records is all that cfg adds to the busybox.
func records(cfg Config) ([]cpio.Record, error) {
	var f files
	f.add(agentPath, cfg.AgentBinary)
	f.symlink(uinitPath, "vtpm-agent")
	f.modules(cfg.Modules)
	more, err := withLibraries([]string{"/"}, cfg.Files)
	if err != nil {
		return nil, err
	}
	for guest, host := range more {
		f.add(guest, host)
	}
	return f.sorted()
}
