// SPDX-License-Identifier: Apache-2.0

package houserules

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "hwvtpm"

// room is a top folder with what its packages may import beside the standard
// library and the room itself. An entry stands for a package and all below it.
type room struct {
	own      []string // packages of this module
	modules  []string // packages of other modules
	forTests []string // either kind, in tests only
}

var (
	sys   = "golang.org/x/sys"
	socks = "internal/unixsock"
	gone  = "internal/memfault"
	turns = "internal/turn"
	files = "internal/durable"
	log   = "github.com/hashicorp/go-hclog"
	gotpm = "github.com/google/go-tpm"
	prom  = []string{"github.com/prometheus/common", "github.com/prometheus/client_model"}
	tests = append([]string{"pgregory.net/rapid", "github.com/google/go-cmp"}, prom...)
)

// rooms is the plan of the house. "*" stands for everything.
var rooms = map[string]room{
	"internal":  {modules: []string{sys}},
	"virtqueue": {modules: []string{sys}},
	"vhostuser": {own: []string{"virtqueue", socks, gone}, modules: []string{sys, log}},
	"qmp":       {own: []string{socks}, modules: []string{sys, log, "github.com/digitalocean/go-qemu"}},
	"coproc":    {own: []string{socks, gone, files, turns}, modules: []string{sys, log}, forTests: []string{gotpm}},
	"vtpm":      {own: []string{"virtqueue", "coproc", "qmp", socks, files}, modules: []string{sys, log, gotpm}, forTests: []string{"vhostuser", "control"}},
	"firmware":  {own: []string{"coproc/abi", socks, gone, files, turns}, modules: []string{sys, log}, forTests: []string{gotpm, "coproc/coproctest"}},
	"control": {own: []string{"coproc/metrics", "vtpm/attest", "vtpm/bundle"}, modules: []string{sys, log, gotpm, "github.com/google/go-attestation", "go.etcd.io/bbolt"},
		forTests: []string{"coproc"}},
	"packaging": {},
	"guest":     {own: []string{"virtqueue", "vhostuser", "qmp", "coproc", "vtpm", "guest", socks, files}, modules: []string{"*"}, forTests: []string{"control"}},
	"cmd":       {own: []string{"*"}, modules: []string{"*"}},
}

// doors are those of a single package, closed to the rest of its room.
var doors = map[string][]string{
	// A card without a vault of its own talks to its host's TPM there.
	"firmware/sealed/hosttpm": {gotpm},
	// An authority may keep its keys in a token.
	"control/ca/hsm": {"github.com/miekg/pkcs11"},
	// What a card issues, by its own firmware, is of the same chain.
	"control/ca": {module + "/coproc/abi/ekcert"},
	// Servers that strangers reach bound what is under way.
	"control/api":        {module + "/internal/places"},
	"vtpm/manager/gates": {module + "/internal/places", module + "/internal/shares"},
	"vtpm/door/doorhttp": {module + "/internal/places", module + "/internal/shares"},
	// What a host's TPM says is held against its firmware's event log there.
	"vtpm/hostpcr": {"github.com/google/go-eventlog"},
	// A verifier knows the authority's certificates, and reads firmware event logs.
	"vtpm/attest": {module + "/control/ca", "github.com/google/go-eventlog", "github.com/google/go-attestation"},
	// A guest may enrol at an authority, without a host between; the benchmark runs one.
	"guest/attester/atcontrol": {module + "/control"},
	"guest/bench":              {module + "/control"},
	// A host's manager issues its card's certificate, and judges its own.
	"vtpm/manager": {module + "/control/ca", module + "/internal/shares"},
}

// cards are the programs that are a card: all others see only the host's side.
var cards = []string{"cmd/hwvtpm-engine", "cmd/coprocd"}

type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	Standard                           bool
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports,Standard"}, args...)...)
	cmd.Dir = top(t)
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// inside says whether path is one of the entries or below one.
func inside(path string, entries []string) bool {
	return slices.ContainsFunc(entries, func(e string) bool {
		return e == "*" || path == e || strings.HasPrefix(path, e+"/")
	})
}

// standard says whether an import path is of the standard library: those have no
// dot in their first element, as a module of the world must have.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".") && first != module
}

// forbidden returns why pkg may not import path, or "".
func forbidden(pkg, path string, test bool) string {
	name, _, _ := strings.Cut(pkg, "/")
	r, known := rooms[name]
	own, isOwn := strings.CutPrefix(path, module+"/")
	if !isOwn {
		own = path
	}
	switch {
	case !known:
		return "its room is not in the plan"
	case standard(path), isOwn && inside(own, []string{name}) && name != "cmd":
		return ""
	case isOwn && inside(own, []string{"cmd"}):
		return "nothing imports a program"
	case isOwn && inside(own, []string{"firmware"}) && !inside(pkg, cards):
		return "only a card's own program sees its inside"
	case isOwn && inside(own, r.own), !isOwn && inside(path, r.modules), inside(path, doors[pkg]):
		return ""
	case test && inside(own, slices.Concat(r.forTests, tests)):
		return ""
	}
	return "not a door of the room " + name
}

// testOnly says whether a package exists for tests: queuetest, qmptest and such.
func testOnly(pkg string) bool {
	return slices.ContainsFunc(strings.Split(pkg, "/")[1:], func(e string) bool { return strings.HasSuffix(e, "test") })
}

func TestRoomsImportOnlyThroughTheirDoors(t *testing.T) {
	for _, p := range goList(t, "./...") {
		pkg := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, path := range p.Imports {
			if why := forbidden(pkg, path, testOnly(pkg)); why != "" {
				t.Errorf("%s imports %s: %s", pkg, path, why)
			}
		}
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			if why := forbidden(pkg, path, true); why != "" {
				t.Errorf("%s imports %s in a test: %s", pkg, path, why)
			}
		}
	}
}

// The process that faces the guest must not grow what it does not need: no cgo,
// and no module beyond these.
func TestBackendLinksLittle(t *testing.T) {
	allowed := []string{
		module, sys, log,
		"github.com/digitalocean/go-qemu/qmp", "github.com/digitalocean/go-libvirt", // the second comes with the first
		"github.com/fatih/color", "github.com/mattn/go-colorable", "github.com/mattn/go-isatty", // of go-hclog
	}
	linked := map[string]bool{}
	for _, p := range goList(t, "-deps", "./cmd/vhost-user-vtpm") {
		linked[p.ImportPath] = true
		if p.Standard || inside(p.ImportPath, allowed) {
			continue
		}
		t.Errorf("vhost-user-vtpm links %s", p.ImportPath)
	}
	for path := range maps.Keys(linked) {
		if strings.HasPrefix(path, module+"/firmware") {
			t.Errorf("vhost-user-vtpm links %s", path)
		}
	}
}

func TestTheRulesThemselves(t *testing.T) {
	for _, tc := range []struct {
		pkg, path string
		test, ok  bool
	}{
		{"virtqueue", "encoding/binary", false, true},
		{"virtqueue", module + "/vhostuser", false, false},
		{"virtqueue/queuetest", module + "/virtqueue", false, true},
		{"virtqueue", "pgregory.net/rapid", true, true},
		{"virtqueue", "pgregory.net/rapid", false, false},
		{"vhostuser", module + "/vtpm", true, false},
		{"vtpm", module + "/firmware/engine", true, false},
		{"firmware/engine", module + "/coproc/abi", false, true},
		{"firmware/engine", module + "/coproc", false, false},
		{"firmware/sealed/hosttpm", gotpm + "/tpm2", false, true},
		{"firmware/sealed", gotpm + "/tpm2", false, false},
		{"coproc/sim", module + "/firmware", true, false},
		{"cmd/hwvtpm-engine", module + "/firmware/engine", false, true},
		{"cmd/vhost-user-vtpm", module + "/firmware/engine", false, false},
		{"guest/lab", module + "/cmd/vhost-user-vtpm", false, false},
		{"attic", "fmt", false, false},
	} {
		if why := forbidden(tc.pkg, tc.path, tc.test); (why == "") != tc.ok {
			t.Errorf("forbidden(%s, %s, test %v) = %q, want allowed %v", tc.pkg, tc.path, tc.test, why, tc.ok)
		}
	}
}
