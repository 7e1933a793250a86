// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"hwvtpm/firmware/card"
	"hwvtpm/firmware/card/store"
	"hwvtpm/firmware/sealed/hosttpm"
)

const defaultPCRs = "sha256:0,2,7"

// setProtection checks how the card's key and counter are kept.
func (c *config) setProtection(pcrs, index string) error {
	if c.hostTPM == "" {
		if pcrs != "" || index != "" || c.backup != "" || c.reseal {
			return errors.New("--pcrs, --nv-index, --key-backup and --reseal need --host-tpm")
		}
		return nil
	}
	if c.keyFile != "" {
		return errors.New("give either --key-file or --host-tpm")
	}
	if c.reseal && c.backup == "" {
		return errors.New("--reseal needs --key-backup")
	}
	if !strings.HasPrefix(c.hostTPM, "device:/") && !strings.HasPrefix(c.hostTPM, "swtpm:") {
		return fmt.Errorf("--host-tpm %q is not device:/dev/..., swtpm:PATH or swtpm:HOST:PORT", c.hostTPM)
	}
	if pcrs == "" {
		pcrs = defaultPCRs
	}
	var err error
	if c.pcrs, err = parsePCRs(pcrs); err != nil {
		return fmt.Errorf("--pcrs %q: %w", pcrs, err)
	}
	if index != "" {
		n, err := strconv.ParseUint(index, 0, 32)
		if err != nil || n>>24 != 1 {
			return fmt.Errorf("--nv-index %q is not the number of an NV index, such as 0x01801a75", index)
		}
		c.index = hosttpm.Index(n)
	}
	return nil
}

// parsePCRs reads a selection in the form of the TPM tools: "sha256:0,2,7".
func parsePCRs(s string) (hosttpm.Selection, error) {
	name, list, ok := strings.Cut(s, ":")
	bank, known := map[string]tpm2.TPMAlgID{"sha256": tpm2.TPMAlgSHA256, "sha384": tpm2.TPMAlgSHA384}[name]
	if !ok || !known {
		return hosttpm.Selection{}, errors.New("bank is neither sha256 nor sha384")
	}
	sel := hosttpm.Selection{Bank: bank}
	for f := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseUint(f, 10, 8)
		if err != nil || n > 23 {
			return hosttpm.Selection{}, fmt.Errorf("%q is not a PCR from 0 to 23", f)
		}
		sel.PCRs = append(sel.PCRs, uint(n))
	}
	return sel, nil
}

// openProtection opens the host's TPM if it is needed. The closer is not nil.
func openProtection(c *config) (card.Protection, io.Closer, error) {
	if c.hostTPM == "" {
		return card.FileProtection(c.keyFile), io.NopCloser(nil), nil
	}
	t, err := openHostTPM(c.hostTPM)
	if err != nil {
		return nil, nil, fmt.Errorf("host TPM: %w", err)
	}
	host := card.HostTPM{TPM: hosttpm.TPM{Transport: t}, PCRs: c.pcrs, Index: c.index, Backup: c.backup}
	if c.reseal {
		if err := store.Reseal(host, c.storeDir); err != nil {
			t.Close()
			return nil, nil, storeError{err}
		}
	}
	return card.TPMProtection(host), t, nil
}

// keyName says where the key is, for the log.
func (c *config) keyName() string {
	switch {
	case c.hostTPM != "":
		return "sealed by the host's TPM at " + c.hostTPM
	case c.keyFile != "":
		return "in clear in " + c.keyFile
	}
	return "in clear in " + filepath.Join(c.storeDir, "key")
}

func openHostTPM(address string) (transport.TPMCloser, error) {
	if path, ok := strings.CutPrefix(address, "device:"); ok {
		return linuxtpm.Open(path)
	}
	address = strings.TrimPrefix(address, "swtpm:")
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	s := &socketTPM{network: network, address: address}
	return s, s.dial()
}

// hostTimeout bounds one command of a host TPM behind a socket. Making a key may
// take it many seconds.
const hostTimeout = time.Minute

// socketTPM is a TPM that takes commands from a stream, one after the other. It
// is not safe for concurrent use.
type socketTPM struct {
	network, address string
	conn             net.Conn // nil: to be connected
}

func (s *socketTPM) dial() (err error) {
	s.conn, err = net.DialTimeout(s.network, s.address, 10*time.Second)
	return err
}

// Send implements transport.TPM. After an error the next command gets a new
// connection: an answer that comes late is not to be taken for its own.
func (s *socketTPM) Send(cmd []byte) ([]byte, error) {
	if s.conn == nil {
		if err := s.dial(); err != nil {
			return nil, err
		}
	}
	rsp, err := s.exchange(cmd)
	if err != nil {
		s.Close()
	}
	return rsp, err
}

func (s *socketTPM) exchange(cmd []byte) ([]byte, error) {
	if err := s.conn.SetDeadline(time.Now().Add(hostTimeout)); err != nil {
		return nil, err
	}
	if _, err := s.conn.Write(cmd); err != nil {
		return nil, err
	}
	const header = 10
	rsp := make([]byte, header, 4096)
	if _, err := io.ReadFull(s.conn, rsp); err != nil {
		return nil, err
	}
	size := int(rsp[2])<<24 | int(rsp[3])<<16 | int(rsp[4])<<8 | int(rsp[5])
	if size < header || size > cap(rsp) {
		return nil, fmt.Errorf("response of %d bytes", size)
	}
	rsp = rsp[:size]
	_, err := io.ReadFull(s.conn, rsp[header:])
	return rsp, err
}

// Close ends the connection. It is idempotent.
func (s *socketTPM) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}
