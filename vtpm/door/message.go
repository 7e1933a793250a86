// SPDX-License-Identifier: Apache-2.0

package door

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Limits of a message in bytes, without its line feeds.
const (
	MaxRequest = 2 << 20 // a machine's quote with its event log, in base64
	MaxAnswer  = 8 << 20 // evidence, with both event logs
	maxName    = 64      // of an id and of an operation
)

// request is a request on its way.
type request struct {
	ID   string          `json:"id"`
	Op   string          `json:"op"`
	Body json.RawMessage `json:"body,omitempty"`
}

// answer is an answer on its way: Result, or Code and Error.
type answer struct {
	ID     string          `json:"id"`
	Result json.RawMessage `json:"result,omitempty"`
	Code   string          `json:"code,omitempty"`
	Error  string          `json:"error,omitempty"`
}

var errNoMessage = errors.New("door: no message")

// parseRequest reads a line that may be anything.
func parseRequest(line []byte) (request, error) {
	var r request
	if err := Decode(line, &r); err != nil {
		return r, err
	}
	if !name(r.ID) || !name(r.Op) {
		return r, errNoMessage
	}
	return r, nil
}

// parseAnswer reads a line that may be anything.
func parseAnswer(line []byte) (answer, error) {
	var a answer
	if err := Decode(line, &a); err != nil {
		return a, err
	}
	if !name(a.ID) || (a.Code == "") == (a.Result == nil) {
		return a, errNoMessage
	}
	return a, nil
}

// name says whether s can be an id or an operation.
func name(s string) bool {
	for _, c := range []byte(s) {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// Decode reads a body strictly: one JSON value with the members of v's type and
// no others. No body is an empty object. Errors have CodeBadRequest.
func Decode(body json.RawMessage, v any) error {
	if len(body) == 0 {
		body = json.RawMessage("{}")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return Errorf(CodeBadRequest, "the request can't be read: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Errorf(CodeBadRequest, "something follows the request")
	}
	return nil
}

// frame makes a line of a message, with its line feeds.
func frame(message any, most int) ([]byte, error) {
	text, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	if len(text) > most {
		return nil, fmt.Errorf("a message of %d bytes, more than %d", len(text), most)
	}
	return append(append([]byte{'\n'}, text...), '\n'), nil
}
