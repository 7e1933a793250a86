// SPDX-License-Identifier: Apache-2.0

package qmp_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"hwvtpm/qmp"
	"hwvtpm/qmp/qmptest"
)

// The tests in this file each hold one situation in which the SocketMonitor of
// go-qemu fails, and which therefore gave reason to this package.

// go-qemu: "bufio.Scanner: token too long", and the monitor is dead.
func TestReplyLongerThan64KiB(t *testing.T) {
	for _, chunk := range []int{0, 1, 4093} {
		t.Run(fmt.Sprintf("chunk=%d", chunk), func(t *testing.T) {
			srv := qmptest.Start(t)
			srv.SetChunk(chunk)
			want := strings.Repeat("schema ", 30000)
			srv.Handle("query-qmp-schema", qmptest.Return(want))
			c := connect(t, srv)
			for range 2 {
				var got string
				if err := c.Execute(within(t), command("query-qmp-schema"), &got); err != nil {
					t.Fatal(err)
				}
				if got != want {
					t.Fatalf("got %d bytes, want %d unchanged", len(got), len(want))
				}
			}
		})
	}
}

// go-qemu: with Events called and nobody reading, the next Run hangs.
func TestUnreadEventsDoNotBlockCommands(t *testing.T) {
	srv, c := dial(t)
	srv.Handle("query-status", qmptest.Return(struct{}{}))
	sub := c.Subscribe()
	const events = 3000
	for i := range events {
		srv.Event("RTC_CHANGE", map[string]any{"n": i})
	}
	if err := c.Execute(within(t), command("query-status"), nil); err != nil {
		t.Fatal(err)
	}
	for i := range events {
		e, err := sub.Next(within(t))
		if err != nil || e.Data["n"] != float64(i) {
			t.Fatalf("event %d: got %v, %v", i, e.Data, err)
		}
	}
}

// go-qemu: the event is taken for the reply, and every later reply is off by
// one if the reply of qmp_capabilities comes in a packet of its own.
func TestEventDuringHandshake(t *testing.T) {
	for name, reply := range map[string]qmptest.Handler{
		"at once": qmptest.Return(struct{}{}),
		"later":   qmptest.Delay(20*time.Millisecond, qmptest.Return(struct{}{})),
	} {
		t.Run(name, func(t *testing.T) {
			srv := qmptest.Start(t)
			srv.Handle("qmp_capabilities", qmptest.EventThen("RESET", nil, reply))
			srv.Handle("query-name", qmptest.Return(map[string]string{"name": "vm1"}))
			c := connect(t, srv)
			got, err := c.QueryName(within(t))
			if got != "vm1" || err != nil {
				t.Fatalf("QueryName() = %q, %v, want vm1", got, err)
			}
		})
	}
}

// go-qemu: the returned bytes are overwritten by what arrives next.
func TestReplyIsNotOverwritten(t *testing.T) {
	srv, c := dial(t)
	want := `{"name":"` + strings.Repeat("a", 2000) + `"}`
	srv.Handle("query-name", qmptest.Return(json.RawMessage(want)))
	sub := c.Subscribe("NOISE")
	var got json.RawMessage
	if err := c.Execute(within(t), command("query-name"), &got); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		srv.Event("NOISE", map[string]string{"text": strings.Repeat("x", 4000)})
		if _, err := sub.Next(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	if string(got) != want {
		t.Errorf("reply changed after it was returned")
	}
}

// go-qemu: Connect and Run take no deadline; the class of an error is dropped.
func TestRefusalKeepsItsClass(t *testing.T) {
	srv, c := dial(t)
	srv.Handle("device_del", qmptest.Refuse(qmp.ClassDeviceNotFound, "Device 'x' not found"))
	err := c.DeviceDel(within(t), "x")
	checkRefusal(t, err, qmp.Error{Command: "device_del", Class: qmp.ClassDeviceNotFound, Desc: "Device 'x' not found"})
	if c.Err() != nil {
		t.Errorf("a refusal ended the connection: %v", c.Err())
	}
}
