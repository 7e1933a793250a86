// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"strings"
)

// Question is what a verifier is asked over a wire: evidence, the nonce that it is to
// answer, and a policy, which may be missing.
type Question struct {
	Evidence *Evidence `json:"evidence"`
	Nonce    Bytes     `json:"nonce"`
	Policy   *Policy   `json:"policy,omitempty"`
}

func (q *Question) log(path string) *Bytes {
	inside, ours := strings.CutPrefix(path, "evidence.")
	if !ours || q.Evidence == nil {
		return nil
	}
	return q.Evidence.log(inside)
}

// ParseQuestion reads a question, as strictly as Parse reads evidence. Errors are
// ErrFormat and ErrNonce.
func ParseQuestion(text []byte) (*Question, error) {
	if len(text) > MaxEvidence+MaxPolicy {
		return nil, fmt.Errorf("%w: a question of %d bytes, more than %d", ErrFormat, len(text), MaxEvidence+MaxPolicy)
	}
	q := &Question{}
	if err := decode(text, q); err != nil {
		return nil, err
	}
	if q.Evidence == nil {
		return nil, fmt.Errorf("%w: a question without evidence", ErrFormat)
	}
	if err := CheckNonce(q.Nonce); err != nil {
		return nil, err
	}
	if err := q.Evidence.check(); err != nil {
		return nil, err
	}
	if q.Policy == nil {
		return q, nil
	}
	if err := q.Policy.check(); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return q, nil
}
