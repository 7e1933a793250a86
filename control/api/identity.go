// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"hwvtpm/control/ca"
	"hwvtpm/control/enrol"
	"hwvtpm/control/store"
)

// maxToken is longer than any token.
const maxToken = 256

// caller finds out who asks. TLS has proven that they have the key of the
// certificate that they show, nothing else.
func (s *Server) caller(r *http.Request) (enrol.Caller, error) {
	who := enrol.Caller{Addr: r.RemoteAddr}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		who.Addr = host
	}
	if text := r.Header.Get("Authorization"); text != "" {
		token, ok := strings.CutPrefix(text, "Bearer ")
		if !ok || token == "" || len(token) > maxToken {
			return who, statusError{http.StatusUnauthorized, errors.New("the Authorization header is not \"Bearer TOKEN\"")}
		}
		who.Token = token
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return who, nil
	}
	var err error
	who.Host, err = s.host(r, r.TLS.PeerCertificates[0])
	return who, err
}

// host is the host of a TLS client certificate: pinned, or one that we issued and
// did not take back.
func (s *Server) host(r *http.Request, cert *x509.Certificate) (host string, err error) {
	err = s.cfg.Store.View(r.Context(), func(tx store.Tx) error {
		p, err := store.Pins.Get(tx, enrol.KeyHash(cert.RawSubjectPublicKeyInfo))
		if err == nil {
			host = p.Host
			return nil
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		host, err = s.issuedTo(tx, cert)
		return err
	})
	return host, err
}

func (s *Server) issuedTo(tx store.Tx, cert *x509.Certificate) (string, error) {
	refuse := func(err error) (string, error) {
		return "", statusError{http.StatusUnauthorized, fmt.Errorf("the TLS certificate is refused: %w", err)}
	}
	a := s.cfg.Authority
	chain, err := ca.Verify(cert, []*x509.Certificate{a.Service.Certificate}, a.Roots(), s.cfg.Now())
	if err != nil {
		return refuse(err)
	}
	if len(chain) != 3 || !ca.Same(chain[1], a.Service.Certificate) {
		return refuse(errors.New("another issuer's"))
	}
	host, err := ca.IsServiceClient(cert)
	if err != nil {
		return refuse(err)
	}
	record, err := store.Certificates.Get(tx, enrol.SerialText(cert))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return refuse(errors.New("not in the records"))
	case err != nil:
		return "", err
	case record.Revoked != nil:
		return refuse(errors.New("revoked"))
	}
	return host, nil
}
