// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/control/api"
	"hwvtpm/control/ca"
	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/attest"
)

func (inv *invocation) checkServe() error {
	if len(inv.names) == 0 {
		return cli.Usagef("serve needs --name: what do clients call this server?")
	}
	if inv.hostLife < time.Hour || inv.vtpmLife < time.Minute || inv.burst < 1 || inv.rate <= 0 {
		return cli.Usagef("serve: a life or limit is too small")
	}
	if v := inv.verify; v.Limit < 1 || v.Limit > attest.MaxEvidence+attest.MaxPolicy || v.Burst < 1 || v.Rate <= 0 {
		return cli.Usagef("serve: --verify-limit is 1 to %d bytes, --verify-burst at least 1, --verify-rate above 0", attest.MaxEvidence+attest.MaxPolicy)
	}
	if inv.url != "" {
		if u, err := url.Parse(inv.url); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return cli.Usagef("serve: --url %q is not http or https", inv.url)
		}
	}
	return nil
}

func (inv *invocation) serve(ctx context.Context) (err error) {
	if err := inv.checkServe(); err != nil {
		return err
	}
	policy, err := inv.readPolicy()
	if err != nil {
		return err
	}
	inv.verify.Policy = policy
	log := hclog.New(&hclog.LoggerOptions{Name: "vtpm-control", Output: inv.con.err, JSONFormat: inv.json})
	o, err := home{inv.dir}.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	server, err := o.server(inv, log)
	if err != nil {
		return err
	}
	operators, err := listenUnix(o.socket())
	if err != nil {
		return err
	}
	defer operators.Close()
	public, err := net.Listen("tcp", inv.listen)
	if err != nil {
		return err
	}
	defer public.Close()
	log.Info("serving", "address", public.Addr().String(), "names", inv.names, "operators", o.socket())
	cli.Tell(log, "READY=1") // who connects from now on is served, if not at once

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make(chan error, 2)
	own := &serverCertificate{authority: o.authority, names: inv.names}
	go func() { ends <- api.Serve(ctx, public, api.TLS(own.get), server.Public()) }()
	go func() { ends <- api.Serve(ctx, operators, nil, server.Operator()) }()
	first := <-ends // by ctx, or because its listener failed: both end
	cli.Tell(log, "STOPPING=1")
	cancel()
	return errors.Join(first, <-ends)
}

// readPolicy reads the policy by which evidence is judged, if there is one.
func (inv *invocation) readPolicy() (*attest.Policy, error) {
	if inv.policy == "" {
		return nil, nil
	}
	f, err := os.Open(inv.policy)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, attest.MaxPolicy+1))
	if err != nil {
		return nil, err
	}
	p, err := attest.ParsePolicy(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", inv.policy, err)
	}
	return p, nil
}

// listenUnix listens where only this user can reach: the folder is private. A
// socket that a crashed server left is replaced; the store's lock says that no
// other is alive.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("operator socket: %w", err)
	}
	return l, nil
}

// serverLife is that of the server's own certificate, which is made anew, with a
// new key, when less than a third is left.
const serverLife = 7 * 24 * time.Hour

// serverCertificate gives the server's certificate of the moment.
type serverCertificate struct {
	authority *ca.Authority
	names     []string

	mu   sync.Mutex // guards cert
	cert *tls.Certificate
}

func (s *serverCertificate) get() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.cert != nil && s.cert.Leaf.NotAfter.Sub(now) > serverLife/3 {
		return s.cert, nil
	}
	cert, err := s.authority.ServerCertificate(s.names, ca.Validity{Now: now, Life: serverLife})
	if err != nil {
		return nil, err
	}
	s.cert = cert
	return cert, nil
}
