// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestParseQuestion(t *testing.T) {
	ev := ok[*Evidence](t)(Parse(golden(t, "evidence.json")))
	full := Question{Evidence: ev, Nonce: nonce, Policy: &Policy{Version: Version}}
	good := string(ok[[]byte](t)(json.Marshal(full)))
	if q := ok[*Question](t)(ParseQuestion([]byte(good))); q.Policy == nil || string(q.Nonce) != string(nonce) {
		t.Errorf("ParseQuestion = %+v", q)
	}
	full.Policy = nil
	if q := ok[*Question](t)(ParseQuestion(ok[[]byte](t)(json.Marshal(full)))); q.Policy != nil {
		t.Error("a policy from nowhere")
	}
	for name, tc := range map[string]struct {
		old, new string
		want     error
	}{
		"no evidence":       {good, `{"nonce":"AAAAAAAAAAAAAAAAAAAAAA=="}`, ErrFormat},
		"null evidence":     {good, `{"evidence":null,"nonce":"AAAAAAAAAAAAAAAAAAAAAA=="}`, ErrFormat},
		"no nonce":          {`"nonce"`, `"nonce-2"`, ErrFormat},
		"nonce twice":       {`"nonce"`, `"nonce":"","nonce"`, ErrFormat},
		"evidence in text":  {`"evidence":{`, `"evidence":"{`, ErrFormat},
		"version of policy": {`"policy":{"version":1}`, `"policy":{"version":2}`, ErrFormat},
		"hidden evidence":   {`{"evidence"`, `{"Evidence":{},"evidence"`, ErrFormat},
	} {
		text := strings.Replace(good, tc.old, tc.new, 1)
		if text == good {
			t.Fatalf("%s: the edit did nothing", name)
		}
		if q, err := ParseQuestion([]byte(text)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, %v, want %v", name, q != nil, err, tc.want)
		}
	}
	if _, err := ParseQuestion([]byte(strings.Replace(good, `"nonce":"`, `"nonce":"AAAA", "x":"`, 1))); !errors.Is(err, ErrFormat) {
		t.Errorf("unknown member: %v", err)
	}
	full.Nonce = nonce[:15]
	if _, err := ParseQuestion(ok[[]byte](t)(json.Marshal(full))); !errors.Is(err, ErrNonce) {
		t.Errorf("short nonce: %v, want ErrNonce", err)
	}
}
