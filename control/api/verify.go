// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"hwvtpm/control/audit"
	"hwvtpm/control/ca"
	"hwvtpm/control/enrol"
	"hwvtpm/control/store"
	"hwvtpm/internal/places"
	"hwvtpm/vtpm/attest"
)

// Verify says how evidence is verified for others.
type Verify struct {
	// Policy judges where a request brings none; nil is the zero policy.
	Policy *attest.Policy
	// Limit is the size of the largest request in bytes: evidence, nonce, policy.
	Limit int64
	// Burst and Rate are as in Config, but of verifications.
	Burst, Rate float64
}

// DefaultVerify takes logs some ten times as large as those of real machines.
func DefaultVerify() Verify { return Verify{Limit: 2 << 20, Burst: 200, Rate: 50} }

// So many requests are under way at a time, of all callers and of each: their bodies
// are in memory.
const (
	manyRequests = 64
	manyOfOne    = 8
)

// Each machine gets so many lines of verifications in the audit log at once, and then
// so many in a second. Whoever has a machine's evidence can send it again and again.
const (
	linesAtOnce = 10
	linesRate   = 1.0 / 60
)

// office verifies evidence.
type office struct {
	cfg    Verify
	limits *limiter
	lines  *limiter
	places *places.Places // one for each request that is read or judged
	cache  *attest.Cache

	mu    sync.Mutex // guards lists
	lists map[string]*x509.RevocationList
}

func newOffice(cfg Verify) *office {
	return &office{
		cfg: cfg, limits: newLimiter(cfg.Burst, cfg.Rate), lines: newLimiter(linesAtOnce, linesRate),
		places: places.New(manyRequests, manyOfOne), cache: attest.NewCache(),
		lists: map[string]*x509.RevocationList{},
	}
}

// verify judges evidence for anybody: the answer says nothing that the caller did
// not send, but for whether it was revoked, which the lists say to everybody.
func (s *Server) verify(w http.ResponseWriter, r *http.Request) error {
	who, err := s.admit(r, s.office.limits)
	if err != nil {
		return err
	}
	leave, ok := s.office.places.Enter(who.Identity())
	if !ok {
		return statusError{http.StatusServiceUnavailable, errors.New("too many verifications are under way")}
	}
	defer leave()
	q, err := s.question(w, r)
	if err != nil {
		return err
	}
	result, err := s.judge(r.Context(), q)
	if err != nil {
		return err
	}
	if err := s.recordVerdict(r.Context(), who, result); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, result)
	return nil
}

// question reads what is asked.
func (s *Server) question(w http.ResponseWriter, r *http.Request) (*attest.Question, error) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.office.cfg.Limit))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, err
	}
	var q *attest.Question
	if err == nil {
		q, err = attest.ParseQuestion(text)
	}
	if err != nil {
		return nil, statusError{http.StatusBadRequest, fmt.Errorf("body: %w", err)}
	}
	if q.Policy == nil {
		q.Policy = s.office.cfg.Policy
	}
	return q, nil
}

// judge judges by this authority's root and its lists of this moment, which a policy
// can't do without here.
func (s *Server) judge(ctx context.Context, q *attest.Question) (*attest.Result, error) {
	lists, err := s.currentLists(ctx)
	if err != nil {
		return nil, err
	}
	var p attest.Policy
	if q.Policy != nil {
		p = *q.Policy
	}
	p.Revocation = true
	v := attest.Verifier{Roots: s.roots, Lists: lists, Policy: &p, Now: s.cfg.Now(), Cache: s.office.cache}
	return v.Verify(q.Evidence, q.Nonce)
}

// currentLists gives the lists of who issues attestation keys' certificates. Without
// the root's key its list may have ended: then the claim says so.
func (s *Server) currentLists(ctx context.Context) ([]*x509.RevocationList, error) {
	var lists []*x509.RevocationList
	for _, issuer := range []string{ca.NameRoot, ca.NameAttestation} {
		der, err := s.cfg.Lists.Current(ctx, issuer, s.cfg.Now())
		if errors.Is(err, ca.ErrNoRootKey) {
			continue
		} else if err != nil {
			return nil, err
		}
		list, err := s.office.list(issuer, der)
		if err != nil {
			return nil, fmt.Errorf("own list of %s: %w", issuer, err)
		}
		lists = append(lists, list)
	}
	return lists, nil
}

// list parses an issuer's list, unless it is the one of the last time.
func (o *office) list(issuer string, der []byte) (*x509.RevocationList, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if known := o.lists[issuer]; known != nil && bytes.Equal(known.Raw, der) {
		return known, nil
	}
	list, err := x509.ParseRevocationList(der)
	if err == nil {
		o.lists[issuer] = list
	}
	return list, err
}

// recordVerdict writes a verdict on a machine into the audit log. What no chain to our
// root names is only counted, lest strangers fill the log.
func (s *Server) recordVerdict(ctx context.Context, who enrol.Caller, r *attest.Result) error {
	s.verdicts.count(r)
	if r.Machine == "" || !s.office.lines.allow(r.Machine, s.cfg.Now()) {
		return nil
	}
	detail := map[string]string{"from": who.Addr, "host": r.Host, "card": r.Card, "verdict": verdict(r)}
	if bad := r.Unmet(); len(bad) > 0 {
		detail["unmet"] = strings.Join(bad, " ")
	}
	e := audit.Event{Event: "verified", Actor: who.Host, Kind: store.KindVTPM, Name: r.Machine, Detail: detail}
	return s.cfg.Operator.Journal.Record(ctx, e)
}

func verdict(r *attest.Result) string {
	if r.OK {
		return "held"
	}
	return "not held"
}
