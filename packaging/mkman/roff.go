// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"strings"
)

// writer writes a manual page (groff_man(7)).
type writer struct{ strings.Builder }

func (w *writer) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

var special = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)

// escape keeps text from being taken for something of roff's.
func escape(text string) string {
	text = special.Replace(text)
	if strings.HasPrefix(text, ".") {
		return `\&` + text
	}
	return text
}

// argument matches what stands for something else in a term.
var argument = regexp.MustCompile(`\b[A-Z][A-Z]+\b`)

// words sets a program's or flag's name in bold and what it takes in italics.
func words(text string) string {
	return `\fB` + argument.ReplaceAllString(escape(text), `\fI$0\fB`) + `\fR`
}

// block writes a part of a help; inner ones stand in a section of their own.
func (w *writer) block(b block, inner bool) {
	switch {
	case b.heading == "Usage":
		if !inner {
			w.line(".SH SYNOPSIS")
		}
		w.line(".nf")
		for _, l := range b.text {
			w.line("%s", words(l))
		}
		w.line(".fi")
		if !inner {
			w.line(".SH DESCRIPTION")
		}
	case b.heading == "Exit codes":
		w.line(".SH EXIT STATUS")
		w.text(b.text)
	case b.heading != "":
		w.line(".SS %s", escape(b.heading))
		for _, it := range b.items {
			w.item(it)
		}
	default:
		w.line(".PP")
		w.text(b.text)
	}
}

// text writes running text.
func (w *writer) text(lines []string) {
	for _, l := range lines {
		w.line("%s", escape(strings.TrimSpace(l)))
	}
}

// item writes an entry of a list; one that belongs to the entry above is set in
// from it.
func (w *writer) item(it item) {
	if it.indent > 2 {
		w.line(".RS")
		defer w.line(".RE")
	}
	w.line(".TP\n%s", words(it.term))
	w.text(it.text)
}
