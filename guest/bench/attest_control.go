// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"hwvtpm/control/ca"
	"hwvtpm/control/client"
)

// controlServer is a running vtpm-control.
type controlServer struct {
	proc    *process
	program string
	dir     string
	addr    string
	client  *client.Client
}

// startControl makes an authority that trusts a maker of TPMs, by a folder of
// certificates, and serves it. Its limits are far away: they would be measured.
func startControl(ctx context.Context, p programs, dir, maker string) (s *controlServer, err error) {
	s = &controlServer{program: p.control, dir: filepath.Join(dir, "control")}
	if _, err := s.run(ctx, "init", "bench"); err != nil {
		return nil, err
	}
	if err := os.CopyFS(filepath.Join(s.dir, "manufacturers"), os.DirFS(maker)); err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	if s.addr, err = freeAddress(); err != nil {
		return nil, err
	}
	s.proc, err = start(dir, p.control, "--dir", s.dir, "serve", "--listen", s.addr, "--name", "127.0.0.1",
		"--url", "http://"+s.addr, "--burst", "1000000", "--rate", "1000000")
	if err != nil {
		return nil, err
	}
	roots, err := client.ReadRoots(s.root())
	if err == nil {
		s.client, err = client.New(client.Config{URL: s.url(), Roots: roots})
	}
	if err == nil {
		err = s.proc.await(ctx, func() error { _, err := s.client.CA(ctx); return err })
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// freeAddress is one that nobody listened to a moment ago.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("bench: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (s *controlServer) url() string  { return "https://" + s.addr }
func (s *controlServer) root() string { return filepath.Join(s.dir, "ca", "root.pem") }

// run runs a command of the operator's.
func (s *controlServer) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.program, append([]string{"--dir", s.dir}, args...)...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("bench: vtpm-control %s: %w: %s", args[0], err, &errs)
	}
	return strings.TrimSpace(string(out)), nil
}

// lists are the revocation lists of now.
func (s *controlServer) lists(ctx context.Context) (lists []*x509.RevocationList, err error) {
	for _, issuer := range []string{ca.NameRoot, ca.NameAttestation} {
		l, err := s.client.CRL(ctx, issuer)
		if err != nil {
			return nil, err
		}
		lists = append(lists, l)
	}
	return lists, nil
}

func (s *controlServer) close() {
	if s.client != nil {
		_ = s.client.Close()
	}
	s.proc.stop()
}
