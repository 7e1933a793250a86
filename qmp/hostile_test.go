// SPDX-License-Identifier: Apache-2.0

package qmp_test

import (
	"errors"
	"strings"
	"testing"

	"hwvtpm/qmp"
	"hwvtpm/qmp/qmptest"
)

// Nonsense ends the connection: its framing cannot be trusted any more.
func TestHostileServerEndsTheConnection(t *testing.T) {
	for name, line := range map[string]string{
		"garbage":                     "\x00\xff\x17 hello",
		"truncated JSON":              `{"return": {`,
		"two values":                  `{"return": {}, "id": 1} {}`,
		"list":                        `[1, 2, 3]`,
		"number":                      `42`,
		"null":                        `null`,
		"empty object":                `{}`,
		"neither reply nor event":     `{"id": 1}`,
		"both reply and refusal":      `{"return": {}, "error": {"class": "c", "desc": "d"}, "id": 1}`,
		"both reply and event":        `{"return": {}, "event": "RESET", "id": 1}`,
		"second greeting":             qmptest.DefaultGreeting,
		"event name is a number":      `{"event": 5}`,
		"event name is empty":         `{"event": ""}`,
		"event data is a string":      `{"event": "RESET", "data": "x"}`,
		"time stamp is a list":        `{"event": "RESET", "timestamp": []}`,
		"time stamp is too big":       `{"event": "RESET", "timestamp": {"seconds": 1e400}}`,
		"error is a string":           `{"error": "x", "id": 1}`,
		"error class is a number":     `{"error": {"class": 1, "desc": "d"}, "id": 1}`,
		"reply without id":            `{"return": {}}`,
		"refusal without id":          `{"error": {"class": "GenericError", "desc": "JSON parse error"}}`,
		"reply with id null":          `{"return": {}, "id": null}`,
		"nested too deep":             strings.Repeat(`{"data":`, 20000),
		"line longer than the limit":  `{"return": "` + strings.Repeat("x", qmp.MaxLine) + `", "id": 1}`,
		"line feeds within a message": "{\n\"event\": \"RESET\"}",
	} {
		t.Run(name, func(t *testing.T) {
			srv, c := dial(t)
			srv.Handle("query-name", qmptest.Raw(line+"\n"))
			if _, err := c.QueryName(within(t)); !errors.Is(err, qmp.ErrProtocol) {
				t.Errorf("QueryName() = %v, want %v", err, qmp.ErrProtocol)
			}
			if err := c.Err(); !errors.Is(err, qmp.ErrProtocol) || len(err.Error()) > 400 {
				t.Errorf("Err() = %v, want a short %v", err, qmp.ErrProtocol)
			}
		})
	}
}

// The limit counts for a line that never ends, too.
func TestEndlessLine(t *testing.T) {
	srv, c := dial(t)
	srv.Handle("query-name", func(conn *qmptest.Conn, _ qmptest.Command) {
		block := []byte(strings.Repeat(" ", 1<<20))
		for range qmp.MaxLine/len(block) + 1 {
			conn.Raw(block)
		}
	})
	if _, err := c.QueryName(within(t)); !errors.Is(err, qmp.ErrProtocol) {
		t.Errorf("QueryName() = %v, want %v", err, qmp.ErrProtocol)
	}
}

func TestLongestLine(t *testing.T) {
	srv, c := dial(t)
	head, tail := `{"id": 1, "return": "`, `"}`
	text := strings.Repeat("x", qmp.MaxLine-len(head)-len(tail))
	srv.Handle("longest", qmptest.Raw(head+text+tail+"\n"))
	var got string
	if err := c.Execute(within(t), command("longest"), &got); err != nil || got != text {
		t.Errorf("Execute(longest) = %d bytes, %v, want %d", len(got), err, len(text))
	}
}

// What is well formed but answers nothing is dropped, and harms nobody.
func TestStrangeRepliesAreDropped(t *testing.T) {
	for name, line := range map[string]string{
		"id never sent":       `{"return": "wrong", "id": 999}`,
		"id is negative":      `{"return": "wrong", "id": -1}`,
		"id is a string":      `{"return": "wrong", "id": "1"}`,
		"id is an object":     `{"return": "wrong", "id": {"a": 1}}`,
		"id is fractional":    `{"return": "wrong", "id": 1.5}`,
		"id is too big":       `{"return": "wrong", "id": 18446744073709551616}`,
		"answered before":     `{"return": "wrong", "id": 0}`,
		"refusal never asked": `{"error": {"class": "GenericError", "desc": "wrong"}, "id": 7}`,
		"empty lines":         "\n\r\n \t\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			srv, c := dial(t)
			srv.Handle("ask", func(conn *qmptest.Conn, cmd qmptest.Command) {
				conn.Raw([]byte(line + "\n" + line + "\n"))
				conn.Reply(cmd, "right")
				conn.Reply(cmd, "duplicate")
			})
			for range 2 {
				var got string
				if err := c.Execute(within(t), command("ask"), &got); err != nil || got != "right" {
					t.Fatalf("Execute(ask) = %q, %v, want right", got, err)
				}
			}
		})
	}
}
