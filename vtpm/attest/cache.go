// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"strings"
	"time"

	"hwvtpm/control/ca"
	"hwvtpm/coproc/abi"
)

// Cache remembers what Verifiers proved, so that they need not prove it again: the
// certificates, the binding and the log of a host are the same in the evidence of all
// its machines, and those of a machine in each answer.
//
// What it may remember are facts that never change: that these bytes are signed by
// this key, that this log leads to these values. Each is kept under the SHA-256 of
// all that it depends on, roots included, and only if it holds: a failure is worked
// out anew each time. What does change is looked at each time: the certificates'
// times, revocation, nonces, the policy. So a Verifier comes to the same result
// with a Cache as without.
//
// A Cache takes some ten kilobytes a machine, at the most 100 MiB. It may be used by
// many Verifiers, of different roots, lists and policies, from any goroutine.
type Cache struct {
	chains     *memo[chainKey, *proven]
	lists      *memo[signature, struct{}]
	quotes     *memo[digest, *quote]
	statements *memo[digest, abi.Statement]
	logs       *memo[digest, *bootLog]
}

// Numbers of what is remembered, and sizes in bytes above which nothing is: real
// chains have some 3 KiB, logs 20 to 100 KiB.
const (
	cachedChains   = 1024
	cachedLists    = 16
	cachedBindings = 1024
	cachedLogs     = 64
	maxCachedChain = 16 << 10
	maxCachedLog   = 128 << 10
)

// NewCache makes an empty Cache.
func NewCache() *Cache {
	return &Cache{
		chains: newMemo[chainKey, *proven](cachedChains), lists: newMemo[signature, struct{}](cachedLists),
		quotes: newMemo[digest, *quote](cachedBindings), statements: newMemo[digest, abi.Statement](cachedBindings),
		logs: newMemo[digest, *bootLog](cachedLogs),
	}
}

// chainKey is a chain as it was sent, and whom it was held against. A pool only
// grows: what led to one of its roots always will.
type chainKey struct {
	roots   *x509.CertPool
	text    digest
	issuers bool // the text is a chain but for its leaf
}

// proven is a chain that leads to a root, and when all of its certificates are good.
type proven struct {
	certs       chain
	from, until time.Time
	first       *x509.CertPool // certs[0] alone, if any leaf may be put below it
}

func (p *proven) good(now time.Time) bool { return !now.Before(p.from) && !now.After(p.until) }

func newProven(certs chain) *proven {
	p := &proven{certs: certs, from: certs[0].NotBefore, until: certs[0].NotAfter}
	for _, c := range certs[1:] {
		if c.NotBefore.After(p.from) {
			p.from = c.NotBefore
		}
		if c.NotAfter.Before(p.until) {
			p.until = c.NotAfter
		}
	}
	return p
}

// build verifies what text has, the first certificate being the leaf.
func (v *Verifier) build(text string) (chain, error) {
	c := v.Cache
	if c == nil || len(text) > maxCachedChain {
		return v.prove(text)
	}
	k := chainKey{v.Roots, digestParts([]byte(text)), false}
	if p, known := c.chains.get(k); known && p.good(v.Now) {
		return p.certs, nil
	}
	leaf, issuers := cutLeaf(text)
	above := chainKey{v.Roots, digestParts([]byte(issuers)), true}
	certs := v.underKnown(leaf, above)
	if certs == nil {
		var err error
		if certs, err = v.prove(text); err != nil {
			return nil, err
		}
		v.keepIssuers(above, issuers, certs)
	}
	c.chains.put(k, newProven(certs))
	return certs, nil
}

const pemEnd = "-----END CERTIFICATE-----\n"

// cutLeaf cuts behind the first certificate of a text.
func cutLeaf(text string) (leaf, issuers string) {
	i := strings.Index(text, pemEnd)
	if i < 0 {
		return text, ""
	}
	return text[:i+len(pemEnd)], text[i+len(pemEnd):]
}

// underKnown proves a leaf that its issuer, of a chain that is known to lead to a root,
// signed. It is the same proof as that of the whole: keepIssuers saw to it that
// nothing further up has a say on leaves. nil means that the whole has to be proven.
func (v *Verifier) underKnown(leaf string, above chainKey) chain {
	p, known := v.Cache.chains.get(above)
	if !known || !p.good(v.Now) {
		return nil
	}
	certs, err := ca.ParsePEM([]byte(leaf))
	if err != nil || len(certs) != 1 {
		return nil
	}
	pair, err := ca.Verify(certs[0], nil, p.first, v.Now)
	if err != nil || len(pair) != 2 {
		return nil
	}
	return append(chain{certs[0]}, p.certs...)
}

// keepIssuers remembers the issuers of a proven chain, if they are the text's and
// leave all leaves alike: the path lengths were checked with a leaf in this place,
// and none of them constrains names or policies.
func (v *Verifier) keepIssuers(k chainKey, text string, certs chain) {
	sent, err := ca.ParsePEM([]byte(text))
	if err != nil || len(sent) == 0 || len(certs) < 2 || !ca.Same(sent[0], certs[1]) {
		return
	}
	if slices.ContainsFunc(certs[1:], constrains) {
		return
	}
	p := newProven(slices.Clone(certs[1:]))
	p.first = x509.NewCertPool()
	p.first.AddCert(certs[1])
	v.Cache.chains.put(k, p)
}

// unconstraining are extensions that say nothing about certificates further down,
// beside what every step of a chain is checked for: subject and authority key, key
// usage, names of the subject, basic constraints, revocation lists, extended usage
// (RFC 5280, 4.2.1), access information (4.2.2.1).
var unconstraining = []asn1.ObjectIdentifier{
	{2, 5, 29, 14}, {2, 5, 29, 35}, {2, 5, 29, 15}, {2, 5, 29, 17}, {2, 5, 29, 19}, {2, 5, 29, 31}, {2, 5, 29, 37},
	{1, 3, 6, 1, 5, 5, 7, 1, 1},
}

// constrains says whether a certificate may have a say on leaves that it did not sign.
func constrains(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if !slices.ContainsFunc(unconstraining, e.Id.Equal) {
			return true
		}
	}
	return false
}

// usableList is usable, of which only the success is remembered.
func (v *Verifier) usableList(list *x509.RevocationList, issuer *x509.Certificate) error {
	if v.Cache == nil {
		return usable(list, issuer)
	}
	k := signature{list, string(issuer.Raw)}
	if _, known := v.Cache.lists.get(k); known {
		return nil
	}
	err := usable(list, issuer)
	if err == nil {
		v.Cache.lists.put(k, struct{}{})
	}
	return err
}

// cardQuote is checkCard for evidence of many machines.
func (v *Verifier) cardQuote(q *Quote, c *ekChain) (*quote, error) {
	if v.Cache == nil {
		return checkCard(q, c)
	}
	k := digestParts(q.Attest, q.Signature, c.hostAIK().RawSubjectPublicKeyInfo, c.cardAIK().RawSubjectPublicKeyInfo)
	if opened, known := v.Cache.quotes.get(k); known {
		return opened, nil
	}
	own := Quote{bytes.Clone(q.Attest), bytes.Clone(q.Signature)}
	opened, err := checkCard(&own, c)
	if err == nil {
		v.Cache.quotes.put(k, opened)
	}
	return opened, err
}

// signedStatement is abi.VerifyStatement by the card's key.
func (v *Verifier) signedStatement(b []byte, c *ekChain, kind abi.StatementType) (abi.Statement, error) {
	if v.Cache == nil || kind != abi.StatementEK { // another has a nonce, and never comes again
		return verifyStatement(b, c)
	}
	k := digestParts(b, c.cardAIK().RawSubjectPublicKeyInfo)
	if st, known := v.Cache.statements.get(k); known {
		return st, nil
	}
	st, err := verifyStatement(bytes.Clone(b), c)
	if err == nil {
		v.Cache.statements.put(k, st)
	}
	return st, err
}

// replayed is replay.
func (v *Verifier) replayed(raw []byte, values PCRs) (*bootLog, error) {
	if v.Cache == nil || len(raw) > maxCachedLog {
		return replay(raw, values)
	}
	parts := [][]byte{raw}
	for _, b := range values.banks() {
		parts = append(parts, []byte(b.name))
		for n := range firmwarePCRs {
			parts = append(parts, values.Get(b.name, n))
		}
	}
	k := digestParts(parts...)
	if l, known := v.Cache.logs.get(k); known {
		return l, nil
	}
	l, err := replay(bytes.Clone(raw), values)
	if err == nil {
		v.Cache.logs.put(k, l)
	}
	return l, err
}
