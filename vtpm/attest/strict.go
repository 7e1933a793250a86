// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
)

// Bytes is binary data: standard base64 with padding in JSON, in its one encoding.
type Bytes []byte

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, b), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	if bytes.ContainsAny(text, "\r\n") {
		return fmt.Errorf("%w: base64 with line ends", ErrFormat)
	}
	v, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	*b = v
	return nil
}

// Hex is a digest: lower-case hexadecimal digits in JSON.
type Hex []byte

// String implements fmt.Stringer.
func (h Hex) String() string { return hex.EncodeToString(h) }

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hex) UnmarshalText(text []byte) error {
	v, err := hex.AppendDecode(nil, text)
	if err != nil || !bytes.Equal(hex.AppendEncode(nil, v), text) {
		return fmt.Errorf("%w: %.20q is not lower-case hexadecimal", ErrFormat, text)
	}
	*h = v
	return nil
}

const maxDepth = 8 // of objects and arrays in each other

// decode reads one JSON value strictly: the names of the type and no other, each
// once and in the case they are written in, and nothing behind the end.
func decode(text []byte, v any) error {
	if err := walk(text); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}

// plain is what names of members look like. encoding/json takes any case of a
// name, and even letters that only fold to it: two spellings would be two names
// here and one there.
var plain = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// scope is an object or array that the walk is in.
type scope struct {
	names map[string]bool // of an object
	value bool            // the next token of an object is a value
}

// walk looks at what encoding/json lets pass: names that come twice, null, depth,
// and something behind the end.
func walk(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var stack []scope
	for {
		tok, err := dec.Token()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
		if stack, err = step(stack, tok); err != nil {
			return err
		}
		if len(stack) == 0 {
			break
		}
	}
	if rest := bytes.TrimSpace(text[dec.InputOffset():]); len(rest) != 0 {
		return fmt.Errorf("%w: something stands behind the end", ErrFormat)
	}
	return nil
}

// step goes past one token.
func step(stack []scope, tok json.Token) ([]scope, error) {
	if tok == json.Delim('}') || tok == json.Delim(']') {
		return stack[:len(stack)-1], nil
	}
	if tok == nil {
		return nil, fmt.Errorf("%w: null", ErrFormat)
	}
	if n := len(stack); n > 0 && stack[n-1].names != nil {
		top := &stack[n-1]
		if top.value = !top.value; top.value {
			return stack, top.name(tok)
		}
	}
	open, ok := tok.(json.Delim)
	switch {
	case !ok:
		return stack, nil
	case len(stack) == maxDepth:
		return nil, fmt.Errorf("%w: more than %d levels", ErrFormat, maxDepth)
	case open == '{':
		return append(stack, scope{names: map[string]bool{}}), nil
	}
	return append(stack, scope{}), nil
}

func (s *scope) name(tok json.Token) error {
	name, _ := tok.(string)
	if !plain.MatchString(name) {
		return fmt.Errorf("%w: a member called %.40q", ErrFormat, name)
	}
	if s.names[name] {
		return fmt.Errorf("%w: member %q comes twice", ErrFormat, name)
	}
	s.names[name] = true
	return nil
}
