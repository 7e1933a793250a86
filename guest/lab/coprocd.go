// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/accesskey"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coprocd"
)

// Coprocd is a running coprocd with the slot of one machine. The store lives in
// the rig, so it may be killed and started again.
type Coprocd struct {
	Socket  string
	Slot    string
	KeyFile string // of the slot
	*process

	rig   *Rig
	flags []string
}

// StartCoprocd starts a coprocd on a new store, with more flags if there are
// any, and makes a slot in it.
func (r *Rig) StartCoprocd(ctx context.Context, flags ...string) (*Coprocd, error) {
	c := &Coprocd{Socket: r.path("coprocd"), Slot: "vm", KeyFile: filepath.Join(r.dir, "vm.key"), rig: r, flags: flags}
	if err := c.start(); err != nil {
		return nil, err
	}
	r.own(c)
	key, err := accesskey.Create(c.KeyFile)
	if err != nil {
		return nil, err
	}
	err = c.Admin(ctx, func(a *admin.Client) error {
		_, err := a.Create(ctx, abi.SlotCreate{
			Keys: abi.DefaultKeys, Banks: abi.DefaultBanks, Name: c.Slot, AccessKey: [32]byte(key.Public().(ed25519.PublicKey)),
		})
		return err
	})
	return c, err
}

func (c *Coprocd) start() (err error) {
	argv := append([]string{c.rig.Env.Program("coprocd"),
		"--store", filepath.Join(c.rig.dir, "store"), "--socket", c.Socket,
		"--engine", c.rig.Env.Program("hwvtpm-engine"), "--worker-uid", "-1"}, // other users may not get at the program
		c.flags...)
	c.process, err = startProcess("coprocd", c.rig.log("coprocd"), nil, argv...)
	return err
}

// Admin calls f with a client, after waiting for the daemon to listen.
func (c *Coprocd) Admin(ctx context.Context, f func(*admin.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.rig.Env.Patience(20*time.Second))
	defer cancel()
	var conn *coprocd.Conn
	err := c.reach(ctx, func() (err error) {
		conn, err = coprocd.Dial(ctx, c.Socket)
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	return f(admin.New(conn))
}

// Restart kills the daemon as a crash would, and starts it again.
func (c *Coprocd) Restart() error {
	c.kill()
	return c.start()
}

// KillWorker kills the worker of the slot and gives its process id, 0 if there
// was none.
func (c *Coprocd) KillWorker(ctx context.Context) (pid int, err error) {
	err = c.Admin(ctx, func(a *admin.Client) error {
		info, err := a.Show(ctx, c.Slot)
		pid = int(info.WorkerPID)
		return err
	})
	if err != nil || pid == 0 {
		return 0, err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return 0, fmt.Errorf("lab: worker %d: %w", pid, err)
	}
	return pid, nil
}

// Close ends the daemon in order.
func (c *Coprocd) Close() error {
	c.end(endGrace)
	return nil
}
