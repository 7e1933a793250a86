// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// event is a line of go test -json (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build events
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// name is the test, or the package for an event of the package as a whole.
type name struct{ pkg, test string }

func (n name) String() string {
	pkg := strings.TrimPrefix(n.pkg, "hwvtpm/")
	if n.test == "" {
		return pkg
	}
	return pkg + " " + n.test
}

// outcome is how a test ended; a greater one hides a lesser one of another tier.
type outcome int

const (
	skipped outcome = iota
	passed
	failed
)

type result struct {
	outcome outcome
	reason  string // of a skip
}

// results gathers the outcomes of all tiers. It has one user at a time.
type results struct {
	out     io.Writer
	tests   map[name]result
	output  map[name]*strings.Builder      // of tests that run
	blamed  map[string]bool                // packages with a failed test in this tier
	shutOut map[string]map[string][]string // by gate and package: tests that have named it as shut
	verbose bool
}

func newResults(out io.Writer) *results {
	return &results{out: out, tests: map[name]result{}, shutOut: map[string]map[string][]string{}}
}

// consume runs go test and reads its events.
func (r *results) consume(cmd *exec.Cmd, verbose bool) error {
	r.verbose, r.output, r.blamed = verbose, map[name]*strings.Builder{}, map[string]bool{}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	bad := r.read(stdout)
	_, _ = io.Copy(io.Discard, stdout)
	err = cmd.Wait()
	if _, exited := errors.AsType[*exec.ExitError](err); exited && cmd.ProcessState.ExitCode() == 1 && len(r.blamed) > 0 {
		err = nil // the failures are counted
	}
	return errors.Join(bad, err)
}

func (r *results) read(stream io.Reader) error {
	dec := json.NewDecoder(stream)
	for {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("output of go test: %w", err)
		}
		r.add(e)
	}
}

func (r *results) add(e event) {
	n := name{e.Package, e.Test}
	switch e.Action {
	case "output":
		r.text(n, e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass":
		r.end(n, e, passed)
	case "skip":
		r.end(n, e, skipped)
	case "fail":
		r.end(n, e, failed)
	}
}

// text keeps a test's output until it is known whether anybody wants it, and
// passes on the line that sums a package up.
func (r *results) text(n name, s string) {
	if n.test == "" && strings.HasPrefix(s, "ok  ") {
		fmt.Fprint(r.out, s)
		return
	}
	b := r.output[n]
	if b == nil {
		b = &strings.Builder{}
		r.output[n] = b
	}
	b.WriteString(s)
}

func (r *results) take(n name) string {
	b := r.output[n]
	delete(r.output, n)
	if b == nil {
		return ""
	}
	return b.String()
}

func (r *results) end(n name, e event, how outcome) {
	text := r.take(n)
	res := result{outcome: how}
	switch how {
	case failed:
		fmt.Fprint(r.out, text)
	case skipped:
		res.reason = skipReason(text)
	}
	r.noteGates(n, text)
	if n.test == "" {
		// A package can fail without a failed test: it did not build, or
		// its process died.
		if res.outcome == failed && !r.blamed[n.pkg] {
			r.lastWords(n.pkg)
			r.record(n, res)
			fmt.Fprintf(r.out, "FAIL\t%s\n", n.pkg)
		}
		return
	}
	r.record(n, res)
	if r.verbose {
		word := [...]string{skipped: "skip", passed: "pass", failed: "FAIL"}[res.outcome]
		fmt.Fprintf(r.out, "  %s  %-60s %6.1fs  %s\n", word, n, e.Elapsed, res.reason)
	}
}

// lastWords prints what the tests said that ran when their package's process died: a
// panic is among it.
func (r *results) lastWords(pkg string) {
	for n := range r.output {
		if n.pkg == pkg {
			fmt.Fprintf(r.out, "died in %s:\n%s", n, r.take(n))
		}
	}
}

func (r *results) record(n name, res result) {
	if res.outcome == failed {
		r.blamed[n.pkg] = true
	}
	if old, ok := r.tests[n]; !ok || res.outcome > old.outcome {
		r.tests[n] = res
	}
}

// merge adds the outcomes of a run that was gathered apart, and its output.
func (r *results) merge(other *results, output string) {
	fmt.Fprint(r.out, output)
	r.blamed = map[string]bool{}
	for n, res := range other.tests {
		r.record(n, res)
	}
}
