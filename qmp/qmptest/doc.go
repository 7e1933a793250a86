// SPDX-License-Identifier: Apache-2.0

// Package qmptest is a fake QMP server for tests: scriptable, observable and,
// where asked to be, hostile.
//
//	srv := qmptest.Start(t)
//	srv.Handle("query-status", qmptest.Return(map[string]any{"status": "running", "running": true}))
//	srv.Handle("device_add", qmptest.Stall())
//	client, err := qmp.Dial(ctx, srv.Path())
//	...
//	srv.Event("RESET", map[string]any{"guest": true, "reason": "guest-reset"})
//
// An event is in the client's socket when Event returns, so that a test can
// demand that the client finds it, without sleeping.
//
// Commands and the descriptors that came with them are recorded: see Commands,
// WaitCommand. Handlers compose: Delay, Sequence, EventThen, Raw, Hangup.
// Conn.Raw writes anything at all; SetChunk cuts writes down to single bytes.
package qmptest
