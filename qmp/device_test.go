// SPDX-License-Identifier: Apache-2.0

package qmp_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hwvtpm/qmp"
	"hwvtpm/qmp/qmptest"
)

// machine is a fake VM: what is plugged, and how it answers hot-plug commands.
type machine struct {
	srv *qmptest.Server

	mu       sync.Mutex
	devices  map[string]bool
	chardevs map[string]bool
	lose     int // device_del requests that the guest does not see
	busy     int // chardev-remove requests that come too early
}

// newMachine returns a VM with device v0 on character device c0.
func newMachine(t *testing.T) (*machine, *qmp.Client) {
	t.Helper()
	srv, c := dial(t, qmp.WithUnplugRetry(100*time.Millisecond))
	m := &machine{srv: srv, devices: map[string]bool{"v0": true}, chardevs: map[string]bool{"c0": true}}
	srv.Handle("device_del", m.deviceDel)
	srv.Handle("qom-list", m.list("name", m.devices))
	srv.Handle("query-chardev", m.list("label", m.chardevs))
	srv.Handle("chardev-remove", m.chardevRemove)
	srv.Handle("chardev-add", m.add(m.chardevs))
	srv.Handle("device_add", m.add(m.devices))
	return m, c
}

func id(cmd qmptest.Command) string {
	var args struct{ ID string }
	_ = json.Unmarshal(cmd.Arguments, &args) // an empty id is told by the test
	return args.ID
}

func (m *machine) deviceDel(conn *qmptest.Conn, cmd qmptest.Command) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := id(cmd)
	if !m.devices[id] {
		conn.Refuse(cmd, qmp.ClassDeviceNotFound, "Device '"+id+"' not found")
		return
	}
	conn.Reply(cmd, struct{}{})
	if m.lose > 0 {
		m.lose--
		return
	}
	path := "/machine/peripheral/" + id
	conn.Event(qmp.EventDeviceDeleted, map[string]string{"path": path + "/virtio-backend"})
	conn.Event(qmp.EventDeviceDeleted, map[string]string{"device": "another", "path": "/machine/peripheral/another"})
	delete(m.devices, id)
	conn.Event(qmp.EventDeviceDeleted, map[string]string{"device": id, "path": path})
}

func (m *machine) chardevRemove(conn *qmptest.Conn, cmd qmptest.Command) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := id(cmd)
	if m.busy > 0 || m.devices["v0"] {
		m.busy--
		conn.Refuse(cmd, qmp.ClassGenericError, "Chardev '"+id+"' is busy")
		return
	}
	delete(m.chardevs, id)
	conn.Reply(cmd, struct{}{})
}

func (m *machine) add(to map[string]bool) qmptest.Handler {
	return func(conn *qmptest.Conn, cmd qmptest.Command) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if to[id(cmd)] {
			conn.Refuse(cmd, qmp.ClassGenericError, "duplicate id")
			return
		}
		to[id(cmd)] = true
		conn.Reply(cmd, struct{}{})
	}
}

func (m *machine) list(key string, from map[string]bool) qmptest.Handler {
	return func(conn *qmptest.Conn, cmd qmptest.Command) {
		m.mu.Lock()
		defer m.mu.Unlock()
		all := []map[string]string{{key: "unrelated"}}
		for id := range from {
			all = append(all, map[string]string{key: id})
		}
		conn.Reply(cmd, all)
	}
}

// changes returns the names of the commands that change the VM.
func (m *machine) changes() []string {
	var all []string
	for _, cmd := range m.srv.Commands() {
		if strings.Contains(cmd.Execute, "device_") || strings.HasPrefix(cmd.Execute, "chardev-") {
			all = append(all, cmd.Execute)
		}
	}
	return all
}

var spec = qmp.VhostUserSpec{
	DeviceID: "v0", ChardevID: "c0", Socket: "/run/new.sock",
	Device: map[string]any{"driver": "vhost-user-test-device-pci", "virtio-id": 38},
}

func TestReplaceVhostUser(t *testing.T) {
	whole := []string{"device_del", "chardev-remove", "chardev-add", "device_add"}
	for name, test := range map[string]struct {
		prepare func(*machine)
		want    []string
	}{
		"in order":             {func(*machine) {}, whole},
		"device gone already":  {func(m *machine) { delete(m.devices, "v0") }, whole},
		"chardev gone already": {func(m *machine) { clear(m.devices); clear(m.chardevs) }, []string{"device_del", "chardev-add", "device_add"}},
		"request lost": {
			func(m *machine) { m.lose = 1 },
			append([]string{"device_del"}, whole...),
		},
		"chardev busy for a while": {
			func(m *machine) { m.busy = 2 },
			[]string{"device_del", "chardev-remove", "chardev-remove", "chardev-remove", "chardev-add", "device_add"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, c := newMachine(t)
			m.mu.Lock()
			test.prepare(m)
			m.mu.Unlock()
			if err := c.ReplaceVhostUser(within(t), spec); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, m.changes()); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
			all := m.srv.Commands()
			wantAdd := `{"chardev":"c0","driver":"vhost-user-test-device-pci","id":"v0","virtio-id":38}`
			if got := string(all[len(all)-1].Arguments); got != wantAdd {
				t.Errorf("device_add %s, want %s", got, wantAdd)
			}
			wantChardev := `{"backend":{"data":{"addr":{"data":{"path":"/run/new.sock"},"type":"unix"},"server":false},"type":"socket"},"id":"c0"}`
			if got := string(all[len(all)-2].Arguments); got != wantChardev {
				t.Errorf("chardev-add %s, want %s", got, wantChardev)
			}
		})
	}
}

// A failed attempt can be repeated from the start.
func TestReplaceVhostUserAgainAfterAFailure(t *testing.T) {
	for _, failing := range []string{"chardev-add", "device_add"} {
		t.Run(failing, func(t *testing.T) {
			m, c := newMachine(t)
			to := m.chardevs
			if failing == "device_add" {
				to = m.devices
			}
			m.srv.Handle(failing, qmptest.Sequence(
				qmptest.Refuse(qmp.ClassGenericError, "no back-end"), m.add(to)))
			err := c.ReplaceVhostUser(within(t), spec)
			checkRefusal(t, err, qmp.Error{Command: failing, Class: qmp.ClassGenericError, Desc: "no back-end"})
			if err := c.ReplaceVhostUser(within(t), spec); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestReplaceVhostUserNeedsACompleteSpec(t *testing.T) {
	m, c := newMachine(t)
	for name, spoil := range map[string]func(*qmp.VhostUserSpec){
		"device id":  func(s *qmp.VhostUserSpec) { s.DeviceID = "" },
		"chardev id": func(s *qmp.VhostUserSpec) { s.ChardevID = "" },
		"socket":     func(s *qmp.VhostUserSpec) { s.Socket = "" },
		"driver":     func(s *qmp.VhostUserSpec) { s.Device = nil },
	} {
		s := spec
		spoil(&s)
		if err := c.ReplaceVhostUser(within(t), s); err == nil {
			t.Errorf("accepted a spec without %s", name)
		}
	}
	if got := m.changes(); len(got) != 0 {
		t.Errorf("the VM was changed by %v", got)
	}
}

func TestUnplugEndsWithItsContext(t *testing.T) {
	m, c := newMachine(t)
	m.srv.Handle("device_del", qmptest.Refuse(qmp.ClassGenericError, "already in the process of unplug"))
	ctx, cancel := context.WithTimeout(within(t), 500*time.Millisecond) // for one refusal at least
	defer cancel()
	err := c.Unplug(ctx, "v0")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "in the process") {
		t.Errorf("Unplug() = %v, want %v and the last refusal", err, context.DeadlineExceeded)
	}
}

func TestUnplugEndsWithTheConnection(t *testing.T) {
	m, c := newMachine(t)
	m.srv.Handle("device_del", qmptest.Hangup())
	if err := c.Unplug(within(t), "v0"); !errors.Is(err, qmp.ErrDisconnected) {
		t.Errorf("Unplug() = %v, want %v", err, qmp.ErrDisconnected)
	}
}

func TestWaitDeviceDeleted(t *testing.T) {
	t.Run("gone before", func(t *testing.T) {
		_, c := newMachine(t)
		if err := c.WaitDeviceDeleted(within(t), "never"); err != nil {
			t.Error(err)
		}
	})
	t.Run("only the second event counts", func(t *testing.T) {
		m, c := newMachine(t)
		result := make(chan error, 1)
		go func() { result <- c.WaitDeviceDeleted(within(t), "v0") }()
		m.srv.WaitCommand(within(t), "qom-list", 1)
		m.srv.Event(qmp.EventDeviceDeleted, map[string]string{"path": "/machine/peripheral/v0/virtio-backend"})
		if err := c.Execute(within(t), command("query-chardev"), nil); err != nil {
			t.Fatal(err) // the reply shows that the event has been dispatched
		}
		select {
		case err := <-result:
			t.Fatalf("WaitDeviceDeleted() = %v after the first event", err)
		default:
		}
		m.srv.Event(qmp.EventDeviceDeleted, map[string]string{"device": "v0"})
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}

// A lost DEVICE_DELETED is made up for by asking.
func TestWaitDeviceDeletedAfterOverflow(t *testing.T) {
	srv, c := dial(t, qmp.WithEventLimit(1))
	srv.Handle("qom-list", qmptest.Sequence(
		func(conn *qmptest.Conn, cmd qmptest.Command) {
			conn.Event(qmp.EventDeviceDeleted, map[string]string{"device": "v0"})
			conn.Event(qmp.EventDeviceDeleted, map[string]string{"device": "v1"})
			conn.Reply(cmd, []map[string]string{{"name": "v0"}})
		},
		qmptest.Return([]struct{}{})))
	if err := c.WaitDeviceDeleted(within(t), "v0"); err != nil {
		t.Error(err)
	}
}
