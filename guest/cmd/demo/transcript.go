// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
)

const (
	shownLines   = 6  // of a command's output
	shownColumns = 76 // of a line
)

// transcript is what the demo prints: plain lines, so that it reads the same in
// a file. Only a terminal gets the check mark.
type transcript struct {
	w        io.Writer
	terminal bool
	steps    int
	checks   int
}

func (t *transcript) headline(format string, args ...any) {
	fmt.Fprintf(t.w, "\n"+format+"\n", args...)
}

func (t *transcript) step(title string) {
	t.steps++
	fmt.Fprintf(t.w, "\n%2d. %s\n", t.steps, title)
}

// command shows a command line as a person would type it.
func (t *transcript) command(prompt, line string) {
	fmt.Fprintf(t.w, "    %s %s\n", prompt, shorten(line, 3*shownColumns))
}

// output shows the beginning of a command's output.
func (t *transcript) output(text string) {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if i == shownLines && len(lines) > shownLines+1 {
			fmt.Fprintf(t.w, "      ... (%d more lines)\n", len(lines)-i)
			return
		}
		fmt.Fprintf(t.w, "      %s\n", shorten(strings.TrimRight(line, " "), shownColumns))
	}
}

// held reports a check that held.
func (t *transcript) held(format string, args ...any) {
	t.checks++
	mark := "ok:"
	if t.terminal {
		mark = "✓"
	}
	fmt.Fprintf(t.w, "    %s %s\n", mark, fmt.Sprintf(format, args...))
}

func (t *transcript) failed(err error) {
	mark := "FAILED:"
	if t.terminal {
		mark = "✗"
	}
	fmt.Fprintf(t.w, "    %s %v\n", mark, err)
}

func (t *transcript) note(format string, args ...any) {
	fmt.Fprintf(t.w, "    note: "+format+"\n", args...)
}

func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-3]) + "..."
	}
	return s
}
