// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/coproc"
	"hwvtpm/coproc/accesskey"
	"hwvtpm/coproc/coprocd"
	"hwvtpm/internal/cli"
)

// raw passes TPM commands from stdin to a slot until the end of stdin.
func (inv *invocation) raw(ctx context.Context) (err error) {
	if inv.slot == "" {
		return cli.Usagef("say which slot with --slot NAME")
	}
	run, err := inv.run32()
	if err != nil {
		return err
	}
	key := inv.key
	if key == "" {
		if key, err = inv.keyFile(inv.slot); err != nil {
			return err
		}
	}
	card, err := coprocd.Open(coprocd.Config{
		Socket: inv.socket,
		Key:    func(string) (ed25519.PrivateKey, error) { return accesskey.Load(key) },
		Logger: hclog.New(&hclog.LoggerOptions{Name: "vtpmctl", Level: hclog.Error, Output: inv.con.err}),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, card.Close()) }()
	s, err := card.OpenSlot(ctx, inv.slot)
	if err != nil {
		return err
	}
	p := &pipe{slot: s}
	if err := p.powerOn(ctx, run); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		err := p.pump(inv.con.in, inv.con.out)
		if inv.flush {
			err = errors.Join(err, p.flush())
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done(): // a read of stdin cannot be ended: leave it
		return nil
	}
}

// run32 names the TPM's run. That of the default lasts until the host boots, as
// a TPM's power does, and is no virtual machine's.
func (inv *invocation) run32() (coproc.RunID, error) {
	name := inv.runID
	if name == "" {
		boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return coproc.RunID{}, fmt.Errorf("cannot name the run, give --run-id: %w", err)
		}
		name = strings.TrimSpace(string(boot)) + " raw"
	}
	return sha256.Sum256([]byte("vtpmctl raw\x00" + inv.slot + "\x00" + name)), nil
}

// pipe passes commands to a slot.
type pipe struct {
	slot coproc.Slot
	cmd  [coproc.MaxTransfer]byte
	resp [coproc.MaxTransfer]byte
}

// headerSize is the size of the header of a command and of a response: tag,
// size, code (TCG TPM 2.0 Part 1, "Command/Response Structure").
const headerSize = 10

// TPM response codes (Part 2, 6.6).
const (
	rcSuccess    = 0x000
	rcInitialize = 0x100 // TPM_RC_INITIALIZE: it is started already
)

// powerOn powers the TPM on, and starts it up if it does not go on as it was.
func (p *pipe) powerOn(ctx context.Context, run coproc.RunID) error {
	r, err := p.slot.PowerOn(ctx, run)
	if err != nil || r.Resumed {
		return err
	}
	startup := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0} // TPM2_Startup(CLEAR)
	resp, err := p.execute(startup)
	if err != nil {
		return err
	}
	if rc := binary.BigEndian.Uint32(resp[6:]); rc != rcSuccess && rc != rcInitialize {
		return fmt.Errorf("TPM2_Startup: response code %#x", rc)
	}
	return nil
}

// execute runs a command. The response is valid until the next.
func (p *pipe) execute(cmd []byte) ([]byte, error) {
	n, err := p.slot.Execute(context.Background(), coproc.Command{Bytes: cmd}, p.resp[:])
	if err == nil && n < headerSize {
		err = fmt.Errorf("response of %d bytes", n)
	}
	return p.resp[:n], err
}

// pump passes commands until the end of in. A response that comes with an error
// of the slot is passed on too.
func (p *pipe) pump(in io.Reader, out io.Writer) error {
	for {
		cmd, err := p.read(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		resp, err := p.execute(cmd)
		if len(resp) > 0 {
			if _, werr := out.Write(resp); werr != nil {
				return fmt.Errorf("pass a response on: %w", werr)
			}
		}
		clear(p.cmd[:len(cmd)]) // both may have passwords in them
		clear(resp)
		if err != nil {
			return err
		}
	}
}

// read reads one command, framed by the size in its header. io.EOF is the end
// between two commands.
func (p *pipe) read(in io.Reader) ([]byte, error) {
	if _, err := io.ReadFull(in, p.cmd[:headerSize]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errors.New("input ends in the middle of a command")
		}
		return nil, err
	}
	size := binary.BigEndian.Uint32(p.cmd[2:])
	if size < headerSize || size > coproc.MaxTransfer {
		return nil, fmt.Errorf("input is no TPM command: its header says that it has %d bytes", size)
	}
	if _, err := io.ReadFull(in, p.cmd[headerSize:size]); err != nil {
		return nil, errors.New("input ends in the middle of a command")
	}
	return p.cmd[:size], nil
}

// flush flushes all transient objects. Nobody has their handles any more.
func (p *pipe) flush() error {
	// TPM2_GetCapability(TPM_CAP_HANDLES, TRANSIENT_FIRST, 64), Part 3, 30.2
	resp, err := p.execute([]byte{0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a, 0, 0, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 64})
	if err != nil || len(resp) < 19 || binary.BigEndian.Uint32(resp[6:]) != rcSuccess {
		return err // a TPM that does not answer has nothing to flush
	}
	handles := append([]byte(nil), resp[19:]...)
	for n := binary.BigEndian.Uint32(resp[15:]); n > 0 && len(handles) >= 4; n-- {
		// TPM2_FlushContext, Part 3, 28.4
		cmd := append([]byte{0x80, 0x01, 0, 0, 0, 14, 0, 0, 0x01, 0x65}, handles[:4]...)
		if _, err := p.execute(cmd); err != nil {
			return err
		}
		handles = handles[4:]
	}
	return nil
}
