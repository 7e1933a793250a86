// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"fmt"
	"strings"
)

// scan goes over JSON for what encoding/json lets pass: names that come twice or are
// not plain, null, and depth. What it goes over has to be decoded afterwards, which
// finds all that is not JSON: scan only has to see each name, each bracket and each
// null of a text that is. It keeps in step with the decoder because the few
// characters that it looks at mean the same in any JSON: a quotation mark begins a
// string, which ends with the next one that no backslash stands before.
type scan struct {
	text  []byte
	at    int
	stack []scope
	logs  []logText
}

// logText is where an event log stands in a text, between its quotation marks. Logs are
// most of evidence, and encoding/json calls a function for each character of a string,
// twice: see decode.
type logText struct {
	path     string // names of the members that lead to it, such as "vm.log"
	from, to int
}

// Bounds of what is scanned. No object of evidence or of a policy has more members
// than there are PCRs.
const (
	maxDepth   = 8 // of objects and arrays in each other
	maxMembers = 64
)

// scope is an object or array that the scan is in.
type scope struct {
	object bool
	key    bool     // the next string of the object is a name
	names  [][]byte // of the object
}

// walk scans a whole text, and tells where its event logs are.
func walk(text []byte) ([]logText, error) {
	s := &scan{text: text}
	for ; s.at < len(text); s.at++ {
		if err := s.step(text[s.at]); err != nil {
			return nil, err
		}
	}
	return s.logs, nil
}

// step goes past one character, or a string.
func (s *scan) step(c byte) error {
	switch c {
	case '{', '[':
		if len(s.stack) == maxDepth {
			return fmt.Errorf("%w: more than %d levels", ErrFormat, maxDepth)
		}
		s.stack = append(s.stack, scope{object: c == '{', key: c == '{'})
	case '}', ']':
		if len(s.stack) == 0 {
			return fmt.Errorf("%w: a bracket that nothing opens", ErrFormat)
		}
		s.stack = s.stack[:len(s.stack)-1]
	case ',':
		if top := s.top(); top != nil {
			top.key = top.object
		}
	case 'n': // of JSON's words only null has one that is not within another: true, false
		return fmt.Errorf("%w: null", ErrFormat)
	case '"':
		return s.pass()
	}
	return nil
}

func (s *scan) top() *scope {
	if len(s.stack) == 0 {
		return nil
	}
	return &s.stack[len(s.stack)-1]
}

// pass goes past a string, and looks at it if it is a name.
func (s *scan) pass() error {
	start := s.at + 1
	for i := start; ; {
		n := bytes.IndexByte(s.text[i:], '"')
		if n < 0 {
			return fmt.Errorf("%w: a string without end", ErrFormat)
		}
		i += n
		if !escaped(s.text[start:i]) {
			s.at = i
			break
		}
		i++
	}
	top := s.top()
	switch {
	case top == nil:
		return nil
	case !top.key:
		s.value(start)
		return nil
	}
	top.key = false
	return top.name(s.text[start:s.at])
}

// value looks at a string that is no name. Of event logs it remembers those that mean
// what they are written as.
func (s *scan) value(start int) {
	if s.top().member() != "log" || bytes.IndexByte(s.text[start:s.at], '\\') >= 0 {
		return
	}
	path := make([]string, 0, maxDepth)
	for i := range s.stack {
		path = append(path, s.stack[i].member())
	}
	s.logs = append(s.logs, logText{strings.Join(path, "."), start, s.at})
}

// escaped says whether what comes behind a text is escaped: an odd number of
// backslashes stands at its end.
func escaped(before []byte) bool {
	n := len(before) - len(bytes.TrimRight(before, `\`))
	return n%2 == 1
}

// plain says what names of members look like. encoding/json takes any case of a
// name, and even letters that only fold to it: two spellings would be two names
// here and one there.
func plain(name []byte) bool {
	for i, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' && i > 0) {
			return false
		}
	}
	return len(name) > 0
}

// member is the object's member that the scan is at, and empty in an array.
func (s *scope) member() string {
	if len(s.names) == 0 {
		return ""
	}
	return string(s.names[len(s.names)-1])
}

func (s *scope) name(name []byte) error {
	if !plain(name) {
		return fmt.Errorf("%w: a member called %.40q", ErrFormat, name)
	}
	if len(s.names) == maxMembers {
		return fmt.Errorf("%w: more than %d members", ErrFormat, maxMembers)
	}
	for _, n := range s.names {
		if bytes.Equal(n, name) {
			return fmt.Errorf("%w: member %q comes twice", ErrFormat, name)
		}
	}
	s.names = append(s.names, name)
	return nil
}
