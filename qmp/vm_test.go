// SPDX-License-Identifier: Apache-2.0

package qmp_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/digitalocean/go-qemu/qmp/raw"

	"hwvtpm/qmp"
	"hwvtpm/qmp/qmptest"
)

func TestCommandsWithoutResult(t *testing.T) {
	srv, c := dial(t)
	for name, run := range map[string]func(context.Context) error{
		"system_reset":   c.SystemReset,
		"quit":           c.Quit,
		"stop":           c.Stop,
		"cont":           c.Cont,
		"chardev-remove": func(ctx context.Context) error { return c.ChardevRemove(ctx, "c0") },
		"closefd":        func(ctx context.Context) error { return c.CloseFD(ctx, "f0") },
	} {
		err := run(within(t)) // not handled yet
		if e, ok := errors.AsType[*qmp.Error](err); !ok || e.Class != qmp.ClassCommandNotFound || e.Command != name {
			t.Errorf("%s: got %v, want %s", name, err, qmp.ClassCommandNotFound)
		}
		srv.Handle(name, qmptest.Return(struct{}{}))
		if err := run(within(t)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQueries(t *testing.T) {
	srv, c := dial(t)
	srv.Handle("query-status", qmptest.Return(map[string]any{"running": true, "singlestep": false, "status": "running"}))
	srv.Handle("query-uuid", qmptest.Return(map[string]string{"UUID": "5b2a1c34-0000-4000-8000-000000000001"}))
	srv.Handle("query-name", qmptest.Return(struct{}{}))

	if s, err := c.QueryStatus(within(t)); err != nil || !s.Running || s.Status != raw.RunStateRunning {
		t.Errorf("QueryStatus() = %+v, %v", s, err)
	}
	if u, err := c.QueryUUID(within(t)); err != nil || u != "5b2a1c34-0000-4000-8000-000000000001" {
		t.Errorf("QueryUUID() = %q, %v", u, err)
	}
	if n, err := c.QueryName(within(t)); err != nil || n != "" {
		t.Errorf("QueryName() of a VM without name = %q, %v", n, err)
	}
	srv.Handle("query-status", qmptest.Return(map[string]any{"status": "levitating"}))
	if _, err := c.QueryStatus(within(t)); err == nil {
		t.Error("QueryStatus() accepted an unknown state")
	}
	srv.Handle("query-status", qmptest.Hangup())
	if _, err := c.QueryStatus(within(t)); !errors.Is(err, io.EOF) {
		t.Errorf("QueryStatus() = %v, want %v", err, io.EOF)
	}
}
