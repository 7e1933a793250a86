// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/uio/uio"
	"github.com/ulikunitz/xz"
)

func hostFile(t *testing.T, dir, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func packed(t *testing.T, content string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// stub is a base archive that takes the place of u-root's.
func stub(t *testing.T) *cpio.Archive {
	t.Helper()
	a, err := cpio.ArchiveFromRecords([]cpio.Record{
		cpio.Directory("bin", 0o755),
		cpio.StaticFile("init", "the init", 0o755),
		cpio.StaticFile("bin/uinit", "another uinit", 0o755),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func testConfig(t *testing.T) Config {
	dir := t.TempDir()
	return Config{
		Out:         filepath.Join(dir, "out.cpio"),
		AgentBinary: hostFile(t, dir, "agent", "the agent", 0o755),
		Modules: []string{
			hostFile(t, dir, "zeta.ko", "zeta module", 0o600),
			hostFile(t, dir, "alpha.ko.xz", packed(t, "alpha module"), 0o600),
		},
		Files: map[string]string{"/etc/some/where": hostFile(t, dir, "f", "text", 0o640)},
	}
}

func build(t *testing.T, cfg Config) Result {
	t.Helper()
	extra, err := records(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r, err := write(cfg.Out, stub(t), extra)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// unpack reads an image back: "path mode content" in the order of the archive.
func unpack(t *testing.T, name string) []string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := cpio.ReadAllRecords(cpio.Newc.Reader(f))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, r := range all {
		kind := map[uint64]string{cpio.S_IFDIR: "/", cpio.S_IFLNK: "@", cpio.S_IFREG: ""}[r.Mode&cpio.S_IFMT]
		content := ""
		if r.FileSize > 0 {
			b, err := uio.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			content = " " + string(b)
		}
		list = append(list, r.Name+kind+content)
	}
	return list
}

func TestArchive(t *testing.T) {
	cfg := testConfig(t)
	build(t, cfg)
	want := []string{
		"bin/", "init the init",
		"bin/uinit@ vtpm-agent", "bin/vtpm-agent the agent",
		// The list keeps the order of Config.Modules.
		"etc/", "etc/hwvtpm/", "etc/hwvtpm/modules /lib/hwvtpm/zeta.ko\n/lib/hwvtpm/alpha.ko\n",
		"etc/some/", "etc/some/where text",
		"lib/", "lib/hwvtpm/", "lib/hwvtpm/alpha.ko alpha module", "lib/hwvtpm/zeta.ko zeta module",
	}
	got := unpack(t, cfg.Out)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The kernel unpacks in order and creates no folders by itself.
func TestFoldersComeFirst(t *testing.T) {
	cfg := testConfig(t)
	build(t, cfg)
	seen := map[string]bool{".": true}
	for _, entry := range unpack(t, cfg.Out) {
		name, _, _ := strings.Cut(entry, " ")
		name = strings.TrimRight(name, "/@")
		if !seen[filepath.Dir(name)] {
			t.Errorf("%s comes before its folder", name)
		}
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
	}
}

func TestSameInputsSameImage(t *testing.T) {
	cfg := testConfig(t)
	first := build(t, cfg)
	before, err := os.ReadFile(cfg.Out)
	if err != nil {
		t.Fatal(err)
	}
	if first.Cached {
		t.Error("the first image came from nowhere")
	}
	second := build(t, cfg)
	if !second.Cached || second.Hash != first.Hash {
		t.Errorf("second build = %+v, want the cached %s", second, first.Hash)
	}
	// Elsewhere, from nothing: the same bytes.
	cfg.Out = filepath.Join(t.TempDir(), "again.cpio")
	if again := build(t, cfg); again.Cached || again.Hash != first.Hash {
		t.Errorf("build elsewhere = %+v, want a new %s", again, first.Hash)
	}
	after, err := os.ReadFile(cfg.Out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Error("the images differ")
	}
}

func TestChangesAreSeen(t *testing.T) {
	changes := map[string]func(*testing.T, *Config){
		"agent":   func(t *testing.T, c *Config) { hostFile(t, filepath.Dir(c.AgentBinary), "agent", "THE agent", 0o755) },
		"module":  func(t *testing.T, c *Config) { c.Modules = c.Modules[:1] },
		"order":   func(t *testing.T, c *Config) { slices.Reverse(c.Modules) },
		"file":    func(t *testing.T, c *Config) { c.Files = nil },
		"no sum":  func(t *testing.T, c *Config) { os.Remove(c.Out + ".sum") },
		"cut off": func(t *testing.T, c *Config) { os.Truncate(c.Out, 100) },
		"gone":    func(t *testing.T, c *Config) { os.Remove(c.Out) },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			build(t, cfg)
			change(t, &cfg)
			if build(t, cfg).Cached {
				t.Error("the image was taken to be up to date")
			}
			if !build(t, cfg).Cached {
				t.Error("the image was not up to date after a build")
			}
		})
	}
}

func TestMissingInputs(t *testing.T) {
	changes := map[string]func(*Config){
		"agent":  func(c *Config) { c.AgentBinary += ".not" },
		"module": func(c *Config) { c.Modules[0] += ".not" },
		"file":   func(c *Config) { c.Files["x"] = "/does/not/exist" },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			change(&cfg)
			if _, err := records(cfg); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("records() = %v, want ErrNotExist", err)
			}
		})
	}
	t.Run("broken module", func(t *testing.T) {
		cfg := testConfig(t)
		cfg.Modules = []string{hostFile(t, t.TempDir(), "a.ko.xz", "not xz", 0o600)}
		if _, err := records(cfg); err == nil {
			t.Error("a module that cannot be unpacked was taken")
		}
	})
	t.Run("config", func(t *testing.T) {
		if _, err := Build(t.Context(), Config{Out: "x"}); err == nil {
			t.Error("Build without an agent succeeded")
		}
	})
}

// A failed build leaves neither a part of an image nor its hash.
func TestFailedWrite(t *testing.T) {
	cfg := testConfig(t)
	cfg.Out = filepath.Join(t.TempDir(), "no", "such", "folder", "out.cpio")
	extra, err := records(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := write(cfg.Out, stub(t), extra); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("write() = %v, want ErrNotExist", err)
	}
}

// The agent uses u-root's library, the image its commands: one version.
func TestOneVersionOfURoot(t *testing.T) {
	line := regexp.MustCompile(`github\.com/u-root/u-root v\S+`)
	var versions []string
	for _, name := range []string{"../../go.mod", "uroot/go.mod"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, string(line.Find(b)))
	}
	if versions[0] != versions[1] || versions[0] == "" {
		t.Errorf("hwvtpm requires %q, its images %q", versions[0], versions[1])
	}
}

func TestFullImage(t *testing.T) {
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("set HWVTPM_TEST_ROOT=1: compiles u-root")
	}
	cfg := testConfig(t)
	if _, err := Build(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, entry := range unpack(t, cfg.Out) {
		name, _, _ := strings.Cut(entry, " ")
		names[strings.TrimRight(name, "/@")] = true
	}
	for _, want := range []string{"init", "bbin/bb", "bbin/dmesg", "bin/sh", "bin/uinit"} {
		if !names[want] {
			t.Errorf("the image lacks %s", want)
		}
	}
	again, err := Build(t.Context(), cfg)
	if err != nil || !again.Cached {
		t.Errorf("second Build() = %+v, %v, want it cached", again, err)
	}
}
