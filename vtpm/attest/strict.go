// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Bytes is binary data: standard base64 with padding in JSON, in its one encoding.
type Bytes []byte

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, b), nil
}

// strictBase64 takes no bits behind the data.
var strictBase64 = base64.StdEncoding.Strict()

// UnmarshalJSON implements json.Unmarshaler. It is given the string as it stands in
// the text, so that a log is not copied once more.
func (b *Bytes) UnmarshalJSON(text []byte) error {
	if len(text) < 2 || text[0] != '"' {
		return fmt.Errorf("%w: %.20q in the place of base64", ErrFormat, text)
	}
	if bytes.IndexByte(text, '\\') < 0 {
		return b.decode(text[1 : len(text)-1])
	}
	var plain string // some write / with a backslash before it
	if err := json.Unmarshal(text, &plain); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return b.decode([]byte(plain))
}

func (b *Bytes) decode(text []byte) error {
	if bytes.IndexByte(text, '\r') >= 0 || bytes.IndexByte(text, '\n') >= 0 {
		return fmt.Errorf("%w: base64 with line ends", ErrFormat)
	}
	v, err := strictBase64.AppendDecode(nil, text)
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

// logged is what has event logs: log gives the place of the one of a path, or nil.
type logged interface{ log(path string) *Bytes }

// decode reads one JSON value strictly: the names of the type and no other, each
// once and in the case they are written in, and nothing behind the end.
//
// Of what has event logs, encoding/json is given the text without them. That reads as
// the whole does, since only base64 was taken out between two quotation marks.
func decode(text []byte, v any) error {
	logs, err := walk(text)
	if err != nil {
		return err
	}
	at, has := v.(logged)
	rest := text
	if has {
		rest = withoutLogs(text, logs)
	}
	dec := json.NewDecoder(bytes.NewReader(rest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if behind := bytes.TrimLeft(rest[dec.InputOffset():], " \t\r\n"); len(behind) != 0 {
		return fmt.Errorf("%w: something stands behind the end", ErrFormat)
	}
	if !has {
		return nil
	}
	for _, l := range logs {
		place := at.log(l.path)
		if place == nil {
			return fmt.Errorf("%w: a log where there is none", ErrFormat)
		}
		if err := place.decode(text[l.from:l.to]); err != nil {
			return err
		}
	}
	return nil
}

// withoutLogs is a text in which the logs are empty.
func withoutLogs(text []byte, logs []logText) []byte {
	if len(logs) == 0 {
		return text
	}
	var rest []byte
	end := 0
	for _, l := range logs {
		rest = append(rest, text[end:l.from]...)
		end = l.to
	}
	return append(rest, text[end:]...)
}
