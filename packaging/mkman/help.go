// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"strings"
)

// block is a part of a program's help, between empty lines.
type block struct {
	heading string   // "Usage", "Exit codes", or of a list; empty: a paragraph
	text    []string // lines
	items   []item
}

// item is an entry of a list.
type item struct {
	indent int // columns before the term
	term   string
	text   []string
}

// gap is between a term and its text, and never within either.
var gap = regexp.MustCompile(`\S(  +|$)`)

// deep is the column from which a line goes on with the text of the entry above.
const deep = 8

// parse takes a help apart. Its form is that of all programs here: a usage, and
// paragraphs; lists, most of them under a heading with a colon, their entries indented
// by two columns or four, and the rest of an entry by eight or more.
func parse(help string) (blocks []block) {
	for part := range strings.SplitSeq(strings.Trim(help, "\n"), "\n\n") {
		lines := strings.Split(part, "\n")
		heading, rest, ok := strings.Cut(lines[0], ":")
		switch {
		case ok && (heading == "Usage" || heading == "Exit codes"):
			lines[0] = strings.TrimSpace(rest)
			blocks = append(blocks, block{heading: heading, text: lines})
		case len(lines) > 1 && strings.HasPrefix(lines[1], "  ") && !strings.HasPrefix(lines[0], " "):
			blocks = append(blocks, parseLists(lines)...)
		case strings.HasPrefix(lines[0], "  "):
			blocks = append(blocks, parseLists(append([]string{"Options:"}, lines...))...)
		default:
			blocks = append(blocks, block{text: lines})
		}
	}
	return blocks
}

// parseLists takes lists apart that follow each other without an empty line.
func parseLists(lines []string) (blocks []block) {
	for _, line := range lines {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if indent == 0 {
			blocks = append(blocks, block{heading: strings.TrimSuffix(line, ":")})
			continue
		}
		b := &blocks[len(blocks)-1]
		if indent >= deep && len(b.items) > 0 {
			last := &b.items[len(b.items)-1]
			last.text = append(last.text, strings.TrimSpace(line))
			continue
		}
		b.items = append(b.items, parseItem(line[indent:], indent))
	}
	return blocks
}

func parseItem(line string, indent int) item {
	at := gap.FindStringIndex(line)
	it := item{indent: indent, term: line[:at[0]+1]}
	if text := strings.TrimSpace(line[at[1]:]); text != "" {
		it.text = []string{text}
	}
	return it
}
