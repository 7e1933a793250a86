// SPDX-License-Identifier: Apache-2.0

package qmp

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// message is one line from the peer (QMP spec "Protocol Specification").
// Exactly one of Greeting, Event, Return and Error is set:
//
//	greeting  {"QMP": {"version": {...}, "capabilities": [...]}}
//	reply     {"return": any, "id": any}
//	refusal   {"error": {"class": string, "desc": string}, "id": any}
//	event     {"event": string, "data": {...}, "timestamp": {...}}
//
// Return and ID are copies: they do not point into the receive buffer.
type message struct {
	Greeting  *Greeting       `json:"QMP"`
	Event     *string         `json:"event"`
	Return    json.RawMessage `json:"return"`
	Error     *Error          `json:"error"`
	ID        json.RawMessage `json:"id"`
	Data      map[string]any  `json:"data"`
	Timestamp json.RawMessage `json:"timestamp"`
}

// parseMessage checks the syntax of one line. Errors wrap ErrProtocol.
func parseMessage(line []byte) (*message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return nil, fmt.Errorf("%w: %w in %s", ErrProtocol, err, excerpt(line))
	}
	kinds := 0
	for _, set := range []bool{m.Greeting != nil, m.Event != nil, m.Return != nil, m.Error != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		return nil, fmt.Errorf("%w: neither greeting, reply nor event: %s", ErrProtocol, excerpt(line))
	}
	return &m, nil
}

// event returns the event in m. Preconditions: m.Event is not nil.
func (m *message) event() (Event, error) {
	e := Event{Event: *m.Event, Data: m.Data}
	if e.Event == "" {
		return Event{}, fmt.Errorf("%w: event without a name", ErrProtocol)
	}
	if m.Timestamp != nil {
		if err := json.Unmarshal(m.Timestamp, &e.Timestamp); err != nil {
			return Event{}, fmt.Errorf("%w: time stamp of %s: %w", ErrProtocol, e.Event, err)
		}
	}
	return e, nil
}

// commandID returns the id that a reply answers. ok is false for an id that
// this client cannot have sent. A reply without any id is an error: QEMU sends
// one when it could not parse a command, and nothing says which.
func (m *message) commandID() (id uint64, ok bool, err error) {
	if len(m.ID) == 0 || bytes.Equal(m.ID, []byte("null")) {
		if m.Error != nil {
			return 0, false, fmt.Errorf("%w: refusal without id: %.128q", ErrProtocol, m.Error.Desc)
		}
		return 0, false, fmt.Errorf("%w: reply without id", ErrProtocol)
	}
	if err := json.Unmarshal(m.ID, &id); err != nil {
		return 0, false, nil
	}
	return id, true, nil
}

// excerpt quotes the start of hostile text for an error message.
func excerpt(line []byte) string {
	const most = 64
	if len(line) > most {
		return fmt.Sprintf("%q...", line[:most])
	}
	return fmt.Sprintf("%q", line)
}
