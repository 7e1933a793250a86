// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"sync"
	"time"

	"hwvtpm/vtpm/hostpcr"
)

// What quotes of the host are for.
const (
	forCard     = "card"          // binding the card to the TPM
	forEvidence = "evidence"      // of a machine, for a verifier
	forBoot     = "boot-evidence" // what a machine's TPM shows of its host's boot
	forMapping  = "mapping"       // of PCRs
)

// What came of a question for a quote.
const (
	quoteMade   = "made"
	quoteShared = "shared" // made for several who asked at once
	quoteCached = "cached" // there was one that is new enough
	quoteFailed = "failed"
	quoteLeft   = "left" // who asked has gone
)

// quoter asks the host's TPM, and counts. Its methods may be called from any goroutine.
type quoter struct {
	pcrs  PCRs
	asked *tally
	took  latencies // from the question to a quote that was made for it

	mu     sync.Mutex // guards shared
	shared time.Time  // when the newest reading was begun that others may have had, too
}

func newQuoter(pcrs PCRs) *quoter {
	q := &quoter{pcrs: pcrs, asked: newTally("for", "result")}
	for _, what := range []string{forCard, forEvidence, forBoot} {
		for _, result := range []string{quoteMade, quoteFailed, quoteLeft} {
			q.asked.show(key{what, result})
		}
	}
	q.asked.show(key{forBoot, quoteCached})
	for _, result := range []string{quoteMade, quoteShared, quoteCached, quoteFailed, quoteLeft} {
		q.asked.show(key{forMapping, result})
	}
	return q
}

// alone gives a quote for this nonce and no other.
func (q *quoter) alone(ctx context.Context, what string, nonce []byte) (*hostpcr.Reading, error) {
	begun := time.Now()
	r, err := q.pcrs.ReadAlone(ctx, nonce)
	q.count(ctx, what, begun, quoteMade, err)
	return r, err
}

// recent gives a reading of at most this age, or one that is shared.
func (q *quoter) recent(ctx context.Context, age time.Duration) (*hostpcr.Reading, error) {
	begun := time.Now()
	r, err := q.pcrs.Recent(ctx, age)
	result := quoteCached
	if err == nil && !r.Begun.Before(begun) {
		result = q.first(r.Begun)
	}
	q.count(ctx, forMapping, begun, result, err)
	return r, err
}

// first says whether a reading is one that was seen before.
func (q *quoter) first(begun time.Time) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !begun.After(q.shared) {
		return quoteShared
	}
	q.shared = begun
	return quoteMade
}

func (q *quoter) count(ctx context.Context, what string, begun time.Time, result string, err error) {
	switch {
	case err != nil && ctx.Err() != nil:
		result = quoteLeft
	case err != nil:
		result = quoteFailed
	case result == quoteMade:
		q.took.add(time.Since(begun))
	}
	q.asked.add(key{what, result})
}
