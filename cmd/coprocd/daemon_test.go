// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/internal/cli"
	"hwvtpm/internal/unixsock"
)

// TestLife: a card is made, keeps its slots over restarts, and the daemon tells
// the service manager what it does.
func TestLife(t *testing.T) {
	d := newDaemon(t).start()
	d.create("a")
	d.cmd.Process.Signal(unix.SIGHUP)
	c := d.open(d.device(), "a")
	c.Startup()
	c.DefineCounter(tpmtest.NVBase, false)
	c.Increment(tpmtest.NVBase)
	want := c.ReadNV(tpmtest.NVBase, 8)
	d.cmd.Process.Signal(unix.SIGTERM)
	d.await("STOPPING=1")
	if code := d.wait(); code != cli.ExitOK {
		t.Errorf("exit code %d", code)
	}
	if !d.tells("no rollback protection") || !d.tells("in clear in "+filepath.Join(d.store, "key")) {
		t.Errorf("the log does not say how the key is kept:\n%s", d.log)
	}
	d.start()
	if got := c.ReadNV(tpmtest.NVBase, 8); string(got) != string(want) { // the driver comes back by itself
		t.Errorf("NV counter %x after a restart, want %x", got, want)
	}
	list, err := d.admin().List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "a" {
		t.Errorf("slots %+v, %v", list, err)
	}
}

// TestTwoDaemons: neither the store nor the socket of a living daemon is taken.
func TestTwoDaemons(t *testing.T) {
	first := newDaemon(t).start()
	first.create("a")
	second := newDaemon(t)
	second.store = first.store
	second.refuses(cli.ExitLasting, "in use")
	third := newDaemon(t)
	third.socket = first.socket
	third.refuses(cli.ExitFailure, "another process serves")
	if _, err := first.admin().Show(t.Context(), "a"); err != nil {
		t.Errorf("the first daemon: %v", err)
	}
}

// TestStaleSocket: the socket that a killed daemon left is replaced; a file is not.
func TestStaleSocket(t *testing.T) {
	d := newDaemon(t).start()
	d.end(unix.SIGKILL)
	d.start()
	d.end(unix.SIGTERM)
	if err := os.WriteFile(d.socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.refuses(cli.ExitFailure, "not a socket")
}

// TestActivation: a service manager's socket is served, one of another kind is not.
func TestActivation(t *testing.T) {
	for _, tc := range []struct {
		network string
		ok      bool
	}{{unixsock.Packets, true}, {unixsock.Stream, false}} {
		t.Run(tc.network, func(t *testing.T) {
			d := newDaemon(t)
			l, err := net.ListenUnix(tc.network, &net.UnixAddr{Name: d.socket, Net: tc.network})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			f, err := l.File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			// LISTEN_PID is the daemon's own.
			d.cmd = exec.Command("/bin/sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"`, "sh",
				built.Path(t, "coprocd"), "--store", d.store, "--vfio-user", filepath.Join(d.dir, "v"))
			d.cmd.Env = []string{"NOTIFY_SOCKET=" + filepath.Join(d.dir, "notify")}
			d.cmd.ExtraFiles = []*os.File{f} // descriptor 3
			d.cmd.Stderr = d.log
			if err := d.cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if !tc.ok {
				if code := d.wait(); code != cli.ExitFailure || !strings.Contains(d.log.String(), "sequential packets") {
					t.Errorf("exit code %d", code)
				}
				return
			}
			d.await("READY=1")
			d.create("a")
			if code := d.end(unix.SIGTERM); code != cli.ExitOK {
				t.Errorf("exit code %d", code)
			}
			if _, err := os.Stat(d.socket); err != nil {
				t.Errorf("the service manager's socket: %v", err)
			}
		})
	}
}

// TestMetrics: a scrape has what happened.
func TestMetrics(t *testing.T) {
	d := newDaemon(t)
	path := filepath.Join(d.dir, "m")
	d.args = []string{"--metrics", "unix:" + path}
	d.start()
	d.create("a", "b")
	c := d.open(d.device(), "a")
	c.Startup()
	c.Extend(10, "event")
	want := []string{
		`coprocd_build_info{version="`,
		`coprocd_protection_info{key="none",rollback="none"`,
		`coprocd_command_duration_seconds_count{class="pcr"} 1`,
		`coprocd_commands_total{result="success"} 2`,
		`coprocd_queue_depth 0`,
		`coprocd_slots{life="live"} 1`,
		`coprocd_slots{life="closed"} 1`,
		`coprocd_slot_acts_total{act="create"} 2`,
		`coprocd_slot_commands_total{slot="a"} 2`,
		`coprocd_slot_state_generation{slot="b"} `,
		`coprocd_save_duration_seconds_bucket{le="+Inf"} `,
	}
	var text, missing string
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		text = scrape(t, path) // a worker counts a command after it has answered it
		if i := slices.IndexFunc(want, func(line string) bool { return !strings.Contains(text, line) }); i >= 0 {
			missing = want[i]
			continue
		}
		return
	}
	t.Errorf("no %s in\n%s", missing, text)
}

func scrape(t *testing.T, socket string) string {
	t.Helper()
	dial := func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }
	c := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := c.Get("http://coprocd/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestOtherUsers: who is no administrator opens slots by their keys, and does
// nothing else.
func TestOtherUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	d := newDaemon(t, "--socket-mode", "0666")
	if err := os.Chmod(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d.start()
	d.create("a")
	asUser(t, 65534, func() {
		client := d.admin()
		info, err := client.Show(t.Context(), "a")
		if err != nil {
			t.Errorf("show: %v", err)
		}
		if err := client.Lock(t.Context(), info); !errors.Is(err, coproc.ErrDenied) {
			t.Errorf("lock: %v, want ErrDenied", err)
		}
		if _, err := client.List(t.Context()); !errors.Is(err, coproc.ErrDenied) {
			t.Errorf("list: %v, want ErrDenied", err)
		}
		dev := d.device()
		d.open(dev, "a").Startup()
		own, err := d.key("a")
		if err != nil {
			t.Fatal(err)
		}
		d.keys["b"] = own
		if _, err := dev.OpenSlot(t.Context(), "b"); !errors.Is(err, coproc.ErrNotFound) {
			t.Errorf("open of a slot that is not there: %v", err)
		}
	})
}
