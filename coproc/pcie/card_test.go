// SPDX-License-Identifier: Apache-2.0

package pcie

import (
	"bytes"
	"crypto/ed25519"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coproctest"
)

// hang guards every wait.
const hang = time.Minute

// cmdGetRandom is TPM2_GetRandom of 32 bytes.
var cmdGetRandom = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 32}

// testWriter sends a log to the test's output.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}

// coprocd is a running card.
type coprocd struct {
	t      testing.TB
	socket string
	dir    string
	cmd    *exec.Cmd

	mu   sync.Mutex // guards what follows
	keys map[string]ed25519.PrivateKey
}

// startCoprocd starts a card for the length of the test.
func startCoprocd(t testing.TB) *coprocd {
	t.Helper()
	dir, err := os.MkdirTemp("", "card") // short, for the socket's name
	if err != nil {
		t.Fatal(err)
	}
	d := &coprocd{t: t, dir: dir, socket: filepath.Join(dir, "card.sock"), keys: map[string]ed25519.PrivateKey{}}
	d.start()
	t.Cleanup(func() {
		d.end(unix.SIGTERM)
		os.RemoveAll(dir)
	})
	return d
}

func (d *coprocd) start() {
	d.t.Helper()
	d.cmd = exec.Command(built.Path(d.t, "coprocd"), "--vfio-user", d.socket, "--store", filepath.Join(d.dir, "store"))
	d.cmd.Stderr = testWriter{d.t}
	d.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL} // a test that is killed leaves nothing
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	for deadline := time.Now().Add(hang); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("unix", d.socket)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("card does not listen: %v", err)
		}
	}
}

func (d *coprocd) end(sig unix.Signal) {
	if d.cmd != nil {
		d.cmd.Process.Signal(sig)
		d.cmd.Wait()
		d.cmd = nil
	}
}

// engines gives the process ids of the card's engines.
func (d *coprocd) engines() (pids []int) {
	tasks, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(d.cmd.Process.Pid), "task", "*", "children"))
	if err != nil {
		d.t.Fatal(err)
	}
	var text []byte
	for _, task := range tasks {
		b, _ := os.ReadFile(task) // a thread may be gone
		text = append(text, b...)
	}
	for f := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// key gives a copy of the access key of a slot, which is made when it is asked for first.
func (d *coprocd) key(name string) (ed25519.PrivateKey, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.keys[name] == nil {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return nil, err
		}
		d.keys[name] = key
	}
	return bytes.Clone(d.keys[name]), nil
}

func (d *coprocd) config() Config {
	log := hclog.New(&hclog.LoggerOptions{Output: testWriter{d.t}, Level: hclog.Info})
	return Config{Open: VFIOUser(d.socket, 0), Key: d.key, Logger: log}
}

// open opens the card.
func (d *coprocd) open() *Card {
	d.t.Helper()
	c, err := Open(d.config())
	if err != nil {
		d.t.Fatalf("Open: %v", err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

// create makes slots, over the function's own admin queue, with one endorsement
// key that is made fast.
func (d *coprocd) create(c *Card, names ...string) {
	d.t.Helper()
	for _, name := range names {
		key, err := d.key(name)
		if err != nil {
			d.t.Fatal(err)
		}
		req := abi.SlotCreate{Keys: abi.KeyP256EK, Banks: abi.DefaultBanks, Name: name, AccessKey: [32]byte(key.Public().(ed25519.PublicKey))}
		if _, err := admin.New(c).Create(d.t.Context(), req); err != nil {
			d.t.Fatalf("create slot %s: %v", name, err)
		}
	}
}

func TestConformance(t *testing.T) {
	coproctest.Run(t, func(t *testing.T) coproc.Device {
		d := startCoprocd(t)
		c := d.open()
		d.create(c, coproctest.SlotName)
		return c
	})
}
