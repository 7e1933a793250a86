// SPDX-License-Identifier: Apache-2.0

package qmp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/qmp"
	"hwvtpm/qmp/qmptest"
)

func TestRequestOnTheWire(t *testing.T) {
	srv, c := dial(t)
	srv.Handle("device_add", qmptest.Return(struct{}{}))
	if err := c.DeviceAdd(within(t), map[string]any{"driver": "d", "id": "v0"}); err != nil {
		t.Fatal(err)
	}
	commands := srv.Commands()
	if len(commands) != 2 || commands[0].Execute != "qmp_capabilities" {
		t.Fatalf("got commands %v, want qmp_capabilities and device_add", commands)
	}
	if len(commands[0].Arguments) != 0 {
		t.Errorf("qmp_capabilities has arguments %s", commands[0].Arguments)
	}
	if got, want := string(commands[1].Arguments), `{"driver":"d","id":"v0"}`; got != want {
		t.Errorf("arguments %s, want %s", got, want)
	}
	if string(commands[0].ID) == string(commands[1].ID) {
		t.Errorf("both commands have the id %s", commands[0].ID)
	}
}

// Replies in another order than the commands reach their own callers.
func TestRepliesOutOfOrder(t *testing.T) {
	srv, c := dial(t)
	const n = 32
	for i := range n {
		delay := time.Duration((i*7)%5) * time.Millisecond
		srv.Handle(fmt.Sprint("echo", i), qmptest.Delay(delay, qmptest.Return(i)))
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			var got int
			err := c.Execute(within(t), command(fmt.Sprint("echo", i)), &got)
			if got != i || err != nil {
				t.Errorf("echo%d = %d, %v", i, got, err)
			}
		})
	}
	wg.Wait()
}

func TestGivingUpACommandLeavesTheConnectionUsable(t *testing.T) {
	srv, c := dial(t)
	release := make(chan struct{})
	srv.Handle("slow", func(conn *qmptest.Conn, cmd qmptest.Command) {
		<-release
		conn.Reply(cmd, "late")
	})
	srv.Handle("next", qmptest.Return("mine"))

	giveUp(t, c, command("slow"), func() { srv.WaitCommand(within(t), "slow", 1) })
	close(release)
	var got string
	if err := c.Execute(within(t), command("next"), &got); err != nil || got != "mine" {
		t.Fatalf("Execute(next) = %q, %v, want mine", got, err)
	}
}

func TestEndedContextSendsNothing(t *testing.T) {
	srv, c := dial(t)
	srv.Handle("next", qmptest.Return(nil))
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	if err := c.Execute(ctx, command("quit"), nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("Execute(quit) = %v, want %v", err, context.Canceled)
	}
	if err := c.Execute(within(t), command("next"), nil); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range srv.Commands() {
		if cmd.Execute == "quit" {
			t.Error("quit was sent")
		}
	}
}

// A command that is given up half written must not spoil the next one.
func TestGivingUpAHalfWrittenCommand(t *testing.T) {
	srv := qmptest.Start(t)
	resume := make(chan struct{})
	srv.Handle("pause", func(conn *qmptest.Conn, _ qmptest.Command) {
		select {
		case <-resume:
		case <-conn.Done():
		}
	})
	srv.Handle("big", qmptest.Return("late"))
	srv.Handle("next", qmptest.Return("mine"))
	c, conn := connectSocket(t, srv)

	giveUp(t, c, command("pause"), func() { srv.WaitCommand(within(t), "pause", 1) })
	text := strings.Repeat("x", 4<<20) // more than a socket holds
	big := qmp.Command{Execute: "big", Args: map[string]string{"text": text}}
	giveUp(t, c, big, func() { awaitUnsent(t, conn, 64<<10) })
	giveUp(t, c, big, func() { time.Sleep(time.Millisecond) }) // finds the socket full
	close(resume)
	var got string
	if err := c.Execute(within(t), command("next"), &got); err != nil || got != "mine" {
		t.Fatalf("Execute(next) = %q, %v, want mine", got, err)
	}
	sent := srv.WaitCommand(within(t), "big", 1)
	if want := `{"text":"` + text + `"}`; string(sent.Arguments) != want {
		t.Errorf("the half written command did not arrive whole: %d bytes, want %d", len(sent.Arguments), len(want))
	}
}

// giveUp starts a command and cancels it when until returns.
func giveUp(t *testing.T, c *qmp.Client, cmd qmp.Command, until func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- c.Execute(ctx, cmd, nil) }()
	until()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Fatalf("Execute(%s) = %v, want %v", cmd.Execute, err, context.Canceled)
	}
}

// awaitUnsent waits until the peer has left that many bytes of ours unread.
func awaitUnsent(t *testing.T, conn *net.UnixConn, least int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for ctx := within(t); ; time.Sleep(time.Millisecond) {
		unsent := 0
		var inner error
		err := raw.Control(func(fd uintptr) { unsent, inner = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		if err != nil || inner != nil || ctx.Err() != nil {
			t.Fatal(err, inner, ctx.Err())
		}
		if unsent >= least {
			return
		}
	}
}

func TestReplyOfAnotherType(t *testing.T) {
	srv, c := dial(t)
	srv.Handle("query-uuid", qmptest.Return([]int{1}))
	if _, err := c.QueryUUID(within(t)); err == nil {
		t.Error("QueryUUID() accepted a list")
	}
	if c.Err() != nil {
		t.Errorf("the reply ended the connection: %v", c.Err())
	}
}

func TestNullIsAReply(t *testing.T) {
	srv, c := dial(t)
	srv.Handle("nothing", qmptest.Return(nil))
	got := json.RawMessage("unset")
	if err := c.Execute(within(t), command("nothing"), &got); err != nil || string(got) != "null" {
		t.Errorf("Execute(nothing) = %s, %v, want null", got, err)
	}
}

func TestArgumentsThatAreNoJSON(t *testing.T) {
	srv, c := dial(t)
	srv.Handle("next", qmptest.Return(nil))
	if err := c.Execute(within(t), qmp.Command{Execute: "bad", Args: func() {}}, nil); err == nil {
		t.Error("Execute() accepted a function as arguments")
	}
	if err := c.Execute(within(t), command("next"), nil); err != nil {
		t.Error(err)
	}
}

func TestDescriptorsArriveWithTheirCommand(t *testing.T) {
	srv, c := dial(t)
	srv.Handle("getfd", qmptest.Return(struct{}{}))
	srv.Handle("add-fd", qmptest.Return(map[string]int{"fdset-id": 3, "fd": 7}))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := c.GetFD(within(t), "pipe", w); err != nil {
		t.Fatal(err)
	}
	if info, err := c.AddFD(within(t), w); err != nil || info.FdsetID != 3 || info.FD != 7 {
		t.Fatalf("AddFD() = %+v, %v", info, err)
	}
	if err := w.Close(); err != nil { // the peer has its own
		t.Fatal(err)
	}
	for i, cmd := range srv.Commands()[1:] {
		if len(cmd.Files) != 1 {
			t.Fatalf("%s came with %d descriptors, want 1", cmd.Execute, len(cmd.Files))
		}
		if _, err := cmd.Files[0].Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if _, err := r.Read(b); err != nil || b[0] != byte(i) {
			t.Errorf("%s: read %v, %v through the pipe", cmd.Execute, b, err)
		}
	}
}

func TestClosedFileIsRefusedAndNothingIsSent(t *testing.T) {
	srv, c := dial(t)
	srv.Handle("next", qmptest.Return(nil))
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.GetFD(within(t), "gone", f); err == nil {
		t.Error("GetFD() sent a closed file")
	}
	if err := c.Execute(within(t), command("next"), nil); err != nil {
		t.Error(err)
	}
	if n := len(srv.Commands()); n != 2 {
		t.Errorf("the server got %d commands, want 2", n)
	}
}
