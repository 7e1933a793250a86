// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hwvtpm/control/operator"
	"hwvtpm/control/store"
	"hwvtpm/vtpm/attest"
)

var nonce = []byte("a nonce of some verifier")

// judged asks for a verdict.
func (r *rig) judged(q *attest.Question) *attest.Result {
	r.t.Helper()
	var res attest.Result
	r.fatal(json.Unmarshal(r.client("").want(http.StatusOK, "POST", "/v1/verify", q), &res))
	return &res
}

// Evidence of a machine that enrolled here holds for anybody who asks, until its host
// is revoked; each verdict is in the audit log.
func TestVerify(t *testing.T) {
	r := newRig(t, 1000)
	m := r.newAnswering("host-1", "vm-1")
	own := &attest.Policy{Version: 1, Modes: []attest.Mode{attest.ModeEvidence}}
	q := &attest.Question{Evidence: m.evidence(nonce), Nonce: nonce, Policy: own}
	res := r.judged(q)
	if !res.OK || res.Machine != "vm-1" || res.Host != "host-1" || res.Get(attest.ClaimRevocation).State != attest.Held {
		t.Fatalf("result %+v", res)
	}
	if res := r.judged(&attest.Question{Evidence: q.Evidence, Nonce: nonce}); res.OK || res.Unmet()[0] != string(attest.ClaimMode) {
		t.Errorf("without a policy: %+v", res)
	}
	if res := r.judged(&attest.Question{Evidence: q.Evidence, Nonce: []byte("the nonce of another one"), Policy: own}); res.OK {
		t.Error("evidence for another nonce holds")
	}
	serials, err := r.cfg.Operator.Revoke(t.Context(), operator.RevokeRequest{Kind: store.KindHost, Name: "host-1"})
	if err != nil || len(serials) == 0 {
		t.Fatal(serials, err)
	}
	if res := r.judged(q); res.OK || res.Get(attest.ClaimRevocation).State != attest.Failed {
		t.Errorf("with the host revoked: %+v", res)
	}
	lines := r.auditLines("verified")
	if len(lines) != 4 || !strings.Contains(lines[0], `"verdict":"held"`) || !strings.Contains(lines[3], `"unmet":"revocation"`) {
		t.Errorf("audit log: %v", lines)
	}
	text := string(r.client("").want(http.StatusOK, "GET", "/metrics", nil))
	if !strings.Contains(text, `vtpm_control_verifications_total{verdict="held"} 1`) {
		t.Errorf("metrics: %s", text)
	}
}

// The operator's policy judges where there is no other, and no policy goes without
// revocation lists.
func TestVerifyByOperatorsPolicy(t *testing.T) {
	r := newRig(t, 1000)
	r.public.office.cfg.Policy = &attest.Policy{Version: 1, Modes: []attest.Mode{attest.ModeEvidence}, Hosts: []string{"host-9"}}
	m := r.newAnswering("host-1", "vm-1")
	q := &attest.Question{Evidence: m.evidence(nonce), Nonce: nonce}
	if res := r.judged(q); res.OK || res.Get(attest.ClaimPolicyNames).State != attest.Failed {
		t.Errorf("a host that the operator does not allow: %+v", res)
	}
	// The root's key is offline, and nobody made its next list.
	r.cfg.Authority.Root.Signer = nil
	r.advance(2 * time.Hour)
	q.Policy = &attest.Policy{Version: 1, Modes: []attest.Mode{attest.ModeEvidence}}
	if c := r.judged(q).Get(attest.ClaimRevocation); c.State != attest.Failed || !strings.Contains(c.Reason, "test root") {
		t.Errorf("without a list of the root: %+v", c)
	}
}

// Whoever has a machine's evidence can't fill the audit log with it, and strangers
// write nothing there.
func TestVerdictsDoNotFillTheLog(t *testing.T) {
	r := newRig(t, 1000)
	q := &attest.Question{Evidence: r.newAnswering("host-1", "vm-1").evidence(nonce), Nonce: nonce}
	for range 2 * linesAtOnce {
		r.judged(q)
	}
	if lines := r.auditLines("verified"); len(lines) != linesAtOnce {
		t.Errorf("%d lines, want %d", len(lines), linesAtOnce)
	}
	other := newRig(t, 1000)
	if res := other.judged(q); res.OK || res.Machine != "" {
		t.Errorf("evidence of another authority: %+v", res)
	}
	if lines := other.auditLines("verified"); len(lines) != 0 {
		t.Errorf("a stranger is in the log: %v", lines)
	}
}

func TestHostileQuestions(t *testing.T) {
	r := newRig(t, 1000)
	r.public.office.cfg.Limit = 64 << 10
	good, err := os.ReadFile(filepath.Join("..", "..", "vtpm", "attest", "testdata", "evidence.json"))
	r.fatal(err)
	ask := func(members string) []byte {
		return []byte(`{"nonce":"AAAAAAAAAAAAAAAAAAAAAA==",` + members + `}`)
	}
	for what, tc := range map[string]struct {
		status int
		body   []byte
	}{
		"garbage":             {400, []byte("garbage")},
		"nothing":             {400, nil},
		"null":                {400, []byte("null")},
		"array":               {400, []byte("[]")},
		"no evidence":         {400, ask(`"policy":{"version":1}`)},
		"null evidence":       {400, ask(`"evidence":null`)},
		"evidence as text":    {400, ask(`"evidence":"e30="`)},
		"empty evidence":      {400, ask(`"evidence":{}`)},
		"unknown member":      {400, ask(`"roots":"mine"`)},
		"member twice":        {400, ask(`"nonce":""`)},
		"short nonce":         {400, []byte(`{"nonce":"AAAA","evidence":` + string(bytes.Repeat([]byte(" "), 10)) + `{}}`)},
		"policy of version 9": {400, ask(`"policy":{"version":9}`)},
		"deep":                {400, bytes.Repeat([]byte(`{"evidence":`), 5000)},
		"many members":        {400, ask(strings.Repeat(`"a":1,`, 9000) + `"b":1`)},
		"something behind":    {400, append(ask(`"evidence":{}`), '{')},
		"too large":           {413, bytes.Repeat([]byte(" "), 64<<10+1)},
		"evidence too large":  {413, ask(`"evidence":` + string(bytes.Repeat(good, 2)))},
	} {
		if status, text := r.client("").do("POST", "/v1/verify", tc.body); status != tc.status {
			t.Errorf("%s: status %d, want %d: %s", what, status, tc.status, text)
		}
	}
	r.client("").want(http.StatusMethodNotAllowed, "GET", "/v1/verify", nil)
	r.client(strings.Repeat("t", maxToken+1)).want(http.StatusUnauthorized, "POST", "/v1/verify", ask(`"evidence":{}`))
	if lines := r.auditLines("verified"); len(lines) != 0 {
		t.Errorf("a hostile body is in the log: %v", lines)
	}
}

// Verifications have a rate of their own, and a bound on how many are under way.
func TestVerifyIsLimited(t *testing.T) {
	r := newRig(t, 1)
	r.public.office.limits = newLimiter(3, 1)
	c := r.client("")
	for range 3 {
		c.want(http.StatusBadRequest, "POST", "/v1/verify", []byte("x"))
	}
	c.want(http.StatusTooManyRequests, "POST", "/v1/verify", []byte("x"))
	c.want(http.StatusBadRequest, "POST", "/v1/enrol", []byte("x"))
	r.advance(time.Second)
	leave := func() {}
	for range manyOfOne {
		leave, _ = r.public.office.places.Enter("address 127.0.0.1")
	}
	c.want(http.StatusServiceUnavailable, "POST", "/v1/verify", []byte("x"))
	leave()
	r.advance(time.Second)
	c.want(http.StatusBadRequest, "POST", "/v1/verify", []byte("x"))
}

// The golden evidence is of another authority, and is a whole judgement all the same.
func TestVerifyForeignEvidence(t *testing.T) {
	r := newRig(t, 1000)
	text, err := os.ReadFile(filepath.Join("..", "..", "vtpm", "attest", "testdata", "evidence.json"))
	r.fatal(err)
	ev, err := attest.Parse(text)
	r.fatal(err)
	res := r.judged(&attest.Question{Evidence: ev, Nonce: nonce})
	if res.OK || res.Get(attest.ClaimVMChain).State != attest.Failed || res.Get(attest.ClaimChain).State != attest.Failed {
		t.Errorf("result %+v", res)
	}
}
