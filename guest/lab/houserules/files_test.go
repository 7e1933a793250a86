// SPDX-License-Identifier: Apache-2.0

package houserules

import (
	"bytes"
	"go/format"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const maxLines = 500

// cgo is where C may be called: the TPM engine, and what shuts a worker in before
// the Go runtime has threads.
var cgo = []string{"firmware/engine", "firmware/sandbox"}

// top is the work tree.
func top(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// tracked returns the contents of git's files by name, those of other folders'
// test data left out: they are what they have to be.
func tracked(t *testing.T) map[string][]byte {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = top(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	files := map[string][]byte{}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join(cmd.Dir, name))
		if os.IsNotExist(err) || strings.Contains(name, "testdata/") {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.ContainsRune(text, 0) {
			files[name] = text
		}
	}
	if len(files) == 0 {
		t.Fatal("git tracks no file")
	}
	return files
}

func isGo(name string) bool { return path.Ext(name) == ".go" }

func isCode(name string) bool {
	return slices.Contains([]string{".go", ".c", ".h", ".sh"}, path.Ext(name)) ||
		slices.Contains([]string{"Makefile", "Kbuild"}, path.Base(name)) || name == ".ci/run"
}

func TestGoFilesAreFormatted(t *testing.T) {
	for name, text := range tracked(t) {
		if !isGo(name) {
			continue
		}
		if want, err := format.Source(text); err != nil || !bytes.Equal(text, want) {
			t.Errorf("%s is not as gofmt has it (%v)", name, err)
		}
	}
}

func TestUnsafeAndCgoStayInTheirFiles(t *testing.T) {
	for name, text := range tracked(t) {
		if !isGo(name) {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ImportsOnly)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		marked := strings.HasSuffix(strings.TrimSuffix(name, ".go"), "_unsafe") || strings.HasSuffix(name, "_unsafe_test.go")
		for _, imp := range file.Imports {
			switch imp.Path.Value {
			case `"unsafe"`:
				if !marked {
					t.Errorf("%s imports unsafe but is not named *_unsafe.go", name)
				}
			case `"C"`:
				if !marked || !slices.Contains(cgo, path.Dir(name)) {
					t.Errorf("%s uses cgo, which only *_unsafe.go in %s may", name, strings.Join(cgo, " and "))
				}
			}
		}
		if marked && bytes.Contains(text, []byte("unsafe.")) && !bytes.Contains(text, []byte("SAFETY:")) {
			t.Errorf("%s has no SAFETY: comment", name)
		}
	}
}

// A package is introduced in its doc.go. A program may do it in main.go, and a
// package of one file there.
func TestEveryPackageIsIntroduced(t *testing.T) {
	sources := map[string][]string{}
	files := tracked(t)
	for name := range files {
		if isGo(name) && !strings.HasSuffix(name, "_test.go") {
			sources[path.Dir(name)] = append(sources[path.Dir(name)], name)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(sources)) {
		places := []string{dir + "/doc.go", dir + "/main.go"}
		if len(sources[dir]) == 1 {
			places = sources[dir]
		}
		introduced := func(name string) bool {
			file, err := parser.ParseFile(token.NewFileSet(), name, files[name], parser.ParseComments|parser.PackageClauseOnly)
			return err == nil && file.Doc.Text() != ""
		}
		if !slices.ContainsFunc(places, introduced) {
			t.Errorf("%s has no package comment in %s", dir, strings.Join(places, " or "))
		}
	}
}

func TestFilesAreShortAndLicensed(t *testing.T) {
	for name, text := range tracked(t) {
		if !isCode(name) {
			continue
		}
		if n := bytes.Count(text, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines, more than %d", name, n, maxLines)
		}
		head := text[:min(len(text), 200)]
		licence := "Apache-2.0"
		if strings.HasPrefix(name, "guest/driver/") && !isGo(name) {
			licence = "GPL-2.0"
		}
		if !bytes.Contains(head, []byte("SPDX-License-Identifier: "+licence)) {
			t.Errorf("%s does not start with its licence, SPDX-License-Identifier: %s", name, licence)
		}
	}
}

// The words are put together here so that this file does not find itself.
var unwanted = map[string]*regexp.Regexp{
	"the path of one machine":   regexp.MustCompile(`(^|[^A-Za-z0-9_.<>*-])/(work/(main|shared)|root/|home/[a-z])`),
	"the host of a registry":    regexp.MustCompile(`(deb|security|snapshot|ftp[a-z.]*)\.` + `debian\.org|(proxy|sum)\.` + `golang\.org|registry\.` + `npmjs`),
	"work that was left undone": regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`),
}

func TestNothingUnwantedIsTracked(t *testing.T) {
	for name, text := range tracked(t) {
		for what, re := range unwanted {
			if m := re.Find(text); m != nil {
				t.Errorf("%s has %s: %q", name, what, m)
			}
		}
	}
}

func TestModuleFilesReplaceNothing(t *testing.T) {
	for name, text := range tracked(t) {
		if path.Base(name) == "go.mod" && regexp.MustCompile(`(?m)^\s*(replace|exclude)\b`).Match(text) {
			t.Errorf("%s has a replace or exclude directive", name)
		}
	}
}

var (
	gateRead  = regexp.MustCompile(`os\.Getenv\("(HWVTPM_TEST_[A-Z]+)"\)`)
	gateNamed = regexp.MustCompile(`\.(?:Skip|Log)f?\(".*\b(HWVTPM_TEST_[A-Z]+)=1`)
)

// Each look at a gate has a message for when it is shut: guest/lab/testrun learns
// from it which tests the gate's tier has to run.
func TestShutGatesAreNamed(t *testing.T) {
	for name, text := range tracked(t) {
		if !isGo(name) {
			continue
		}
		gates := func(re *regexp.Regexp) []string {
			var found []string
			for _, m := range re.FindAllSubmatch(text, -1) {
				found = append(found, string(m[1]))
			}
			return found
		}
		if read, named := gates(gateRead), gates(gateNamed); !slices.Equal(read, named) {
			t.Errorf("%s reads %q, and its messages name %q", name, read, named)
		}
	}
}
