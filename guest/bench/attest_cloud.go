// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-eventlog/testdata"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/coproc/coproctest/swtpmtest"
	"hwvtpm/vtpm/door"
	"hwvtpm/vtpm/hostdoor"
)

// hostLog is the event log of a real machine with Secure Boot on.
var hostLog = testdata.Rhel8EventLog

// benchHost is how the host is called.
const benchHost = "bench-host"

// cloud is an authority and a host of its, with card and daemon, each a real
// program. swtpm is the host's TPM, and the daemon goes to it through a meter.
type cloud struct {
	dir      string
	plan     Plan
	control  *controlServer
	hostTPM  *process
	meter    *meter
	card     *cardHost
	hostd    *process
	peer     target // a TPM like the host's, for go-attestation
	machines []*tenant
}

func startCloud(ctx context.Context, p programs, dir string, plan Plan) (c *cloud, err error) {
	c = &cloud{dir: dir, plan: plan}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	maker, err := c.startHostTPM(ctx)
	if err != nil {
		return nil, err
	}
	if c.control, err = startControl(ctx, p, dir, maker); err != nil {
		return nil, err
	}
	if c.card, err = startCard(ctx, p, filepath.Join(dir, "card"), "--park-after", "1h"); err != nil {
		return nil, err
	}
	if err = c.startHostd(ctx, p); err != nil {
		return nil, err
	}
	if err = c.startTenants(ctx); err != nil {
		return nil, err
	}
	_, c.peer, err = manufactured(ctx, filepath.Join(dir, "peer"))
	return c, err
}

// startHostTPM makes the host's TPM, boots the host, and gives the folder with its
// maker's certificates.
func (c *cloud) startHostTPM(ctx context.Context) (maker string, err error) {
	dir := filepath.Join(c.dir, "host")
	maker, t, err := manufactured(ctx, dir)
	if err != nil {
		return "", err
	}
	host := t.(*swtpmTarget)
	c.hostTPM = host.proc
	err = boot(host, hostLog)
	host.disconnect() // it serves one client at a time
	if err != nil {
		return "", err
	}
	c.meter, err = newMeter(filepath.Join(c.dir, "tpm.sock"), filepath.Join(dir, "swtpm.sock"))
	return maker, err
}

// manufactured starts an swtpm as a maker ships it, with certificates.
func manufactured(ctx context.Context, dir string) (maker string, t target, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("bench: %w", err)
	}
	maker, err = swtpmtest.Manufacture(dir)
	if err == nil {
		err = os.Rename(filepath.Join(dir, "tpm"), filepath.Join(dir, "swtpm"))
	}
	if err != nil {
		return "", nil, fmt.Errorf("bench: %w", err)
	}
	if t, err = openSwtpm(ctx, dir); err != nil {
		return "", nil, err
	}
	if err := startup(t); err != nil {
		t.close()
		return "", nil, err
	}
	return maker, t, nil
}

// boot measures a log's events into a TPM, in SHA-256.
func boot(t transport.TPM, text []byte) error {
	log, err := tcg.ParseEventLog(text, tcg.ParseOpts{AllowPadding: true})
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	for _, e := range log.Events(register.HashSHA256) {
		if e.Type == tcg.NoAction {
			continue
		}
		digest := tpm2.TPMTHA{HashAlg: tpm2.TPMAlgSHA256, Digest: e.Digest}
		extend := tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(e.Index), Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{digest}},
		}
		if _, err := extend.Execute(t); err != nil {
			return fmt.Errorf("bench: PCR_Extend: %w", err)
		}
	}
	return nil
}

// startHostd starts the host's daemon and waits until the card is tied to the
// host's TPM: slots that are made from then on have certificates at once.
func (c *cloud) startHostd(ctx context.Context, p programs) error {
	token, err := c.control.run(ctx, "token", "host", benchHost)
	if err != nil {
		return err
	}
	err = errors.Join(os.WriteFile(c.path("token"), []byte(token), 0o600), os.WriteFile(c.path("log"), hostLog, 0o600),
		os.Mkdir(c.path("guests"), 0o700))
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	c.hostd, err = start(c.dir, p.hostd, "--name", benchHost, "--dir", c.path("hostd"), "--tpm", "swtpm:"+c.path("tpm.sock"),
		"--coproc", filepath.Join(c.dir, "card", "card.sock"), "--event-log", c.path("log"),
		"--control", c.control.url(), "--control-ca", c.control.root(), "--token-file", c.path("token"),
		"--socket", c.path("hostd.sock"), "--backend-socket", c.path("backend.sock"), "--guest-dir", c.path("guests"))
	if err != nil {
		return err
	}
	return c.hostd.await(ctx, func() error {
		conn, err := net.Dial("unix", c.path("hostd.sock"))
		if err != nil {
			return err
		}
		client := door.NewClient(conn)
		defer client.Close()
		var s door.Status
		if err := client.Call(ctx, door.OpStatus, nil, &s); err != nil {
			return err
		}
		if s.CardAIK.Serial == "" {
			return fmt.Errorf("the card has no certificate: %v", s.Problems)
		}
		return nil
	})
}

// startTenants makes all before it waits for the daemon to find them.
func (c *cloud) startTenants(ctx context.Context) error {
	for i := range c.plan.AttestMachines {
		m, err := c.newTenant(ctx, manySlots(i))
		if err != nil {
			return err
		}
		c.machines = append(c.machines, m)
	}
	for _, m := range c.machines {
		conn, err := c.hostd.connect(ctx, filepath.Join(c.path("guests"), m.name+".sock"))
		if err != nil {
			return err
		}
		m.door = door.NewClient(conn)
	}
	return nil
}

func (c *cloud) path(name string) string { return filepath.Join(c.dir, name) }

// backend is the daemon as backends ask it.
func (c *cloud) backend() *hostdoor.Client {
	return &hostdoor.Client{Socket: c.path("backend.sock"), Timeout: 30 * time.Second}
}

// close ends all programs, those that ask before those that answer.
func (c *cloud) close() {
	for _, m := range c.machines {
		m.close()
	}
	if c.hostd != nil {
		c.hostd.stop()
	}
	if c.card != nil {
		c.card.close()
	}
	if c.control != nil {
		c.control.close()
	}
	if c.meter != nil {
		c.meter.close()
	}
	if c.hostTPM != nil {
		c.hostTPM.stop()
	}
	if c.peer != nil {
		c.peer.close()
	}
}
