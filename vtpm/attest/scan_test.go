// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// tokens is walk by encoding/json's own tokens: slower, and plain to see.
func tokens(text []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(text))
	type scope struct {
		names map[string]bool
		value bool
	}
	var stack []scope
	for {
		tok, err := dec.Token()
		if err != nil || tok == nil {
			return false
		}
		if tok == json.Delim('}') || tok == json.Delim(']') {
			if stack = stack[:len(stack)-1]; len(stack) == 0 {
				return true
			}
			continue
		}
		if n := len(stack); n > 0 && stack[n-1].names != nil {
			top := &stack[n-1]
			if top.value = !top.value; top.value {
				name, _ := tok.(string)
				if top.names[name] || !plain([]byte(name)) || len(top.names) == maxMembers {
					return false
				}
				top.names[name] = true
				continue
			}
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, scope{names: map[string]bool{}})
		case json.Delim('['):
			stack = append(stack, scope{})
		}
		if len(stack) > maxDepth {
			return false
		}
		if len(stack) == 0 {
			return true
		}
	}
}

// passes says whether the scan lets a text pass.
func passes(text []byte) bool {
	_, err := walk(text)
	return err == nil
}

// Of all that is JSON, the scan lets pass what the tokens do; but names that are
// written with escapes, which it refuses.
func agree(t *testing.T, text []byte) {
	t.Helper()
	if !json.Valid(text) {
		return
	}
	got, want := passes(text), tokens(text)
	if got != want && (got || !bytes.ContainsRune(text, '\\')) {
		t.Errorf("walk passes %.200q: %v, tokens: %v", text, got, want)
	}
}

func TestScan(t *testing.T) {
	for text, want := range map[string]bool{
		`{}`: true, `[]`: true, `7`: true, `"a"`: true, `true`: true, `false`: true, `null`: false,
		`{"a":1,"b":1}`: true, `{"a":1,"a":1}`: false, `{"a":{"a":1}}`: true, `[{"a":1},{"a":1}]`: true,
		`{"a":[1,{"b":2},3],"c":"a","b":"null"}`: true, `{"a":[null]}`: false, `{"A":1}`: false, `{"":1}`: false,
		`{"a":"\"b\":1,\"a\":"}`: true, `{"a":"\\","b":1}`: true, `{"a":"\\\"","a":1}`: false, `{"\u0061":1}`: false,
		`{"a":"}","a":1}`: false, `{"a" : 1 , "a" : 1}`: false, `{"a":["x","y"],"x":1}`: true, `{"-a":1}`: false,
		strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth):     true,
		strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1): false,
	} {
		if got := passes([]byte(text)); got != want || !json.Valid([]byte(text)) {
			t.Errorf("walk passes %q: %v, want %v", text, got, want)
		}
		agree(t, []byte(text))
	}
	for _, text := range []string{``, `"`, `"\`, `]`, `}{`, `{"a`, strings.Repeat(`{"a":1,`, 9), `{"a":1,` + strings.Repeat(`"b\`, 9)} {
		var v any
		if err := decode([]byte(text), &v); err == nil {
			t.Errorf("%q is read", text)
		}
	}
	var many strings.Builder
	many.WriteString("{")
	for i := range maxMembers + 1 {
		many.WriteString(`"m` + strings.Repeat("x", i) + `":1,`)
	}
	if passes([]byte(many.String() + `"z":1}`)) {
		t.Error("an object of too many members is read")
	}
}

func FuzzScan(f *testing.F) {
	f.Add(golden(f, "evidence.json"))
	for _, s := range []string{`{"a":[1,{"b":"\"c\":"}],"a":null}`, `{"\u0061":1,"a":"\\"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(agree)
}

// base64 may have its slashes escaped, and nothing else about it may vary.
func TestBytes(t *testing.T) {
	for text, want := range map[string]string{`"AA=="`: "\x00", `"\/w=="`: "\xff", `""`: "", `"\u0041A=="`: "\x00"} {
		var b Bytes
		if err := json.Unmarshal([]byte(text), &b); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", text, b, err)
		}
	}
	for _, text := range []string{`"AB=="`, `"AA"`, `"AA==\n"`, `"A A="`, `7`, `null`, `{}`, `"AA==AA=="`, `"\r\n"`} {
		var b Bytes
		if err := json.Unmarshal([]byte(text), &b); err == nil {
			t.Errorf("%s is read: %q", text, b)
		}
	}
}

// unlogged is evidence of which encoding/json gets all of the text.
type unlogged Evidence

// Logs that encoding/json does not see are read as if it did, but for those in a place
// where there is none: decode refuses them, and otherwise check does.
func sameLogs(t *testing.T, text []byte) {
	t.Helper()
	var got Evidence
	var want unlogged
	err, slow := decode(text, &got), decode(text, &want)
	if (err == nil) != (slow == nil) && (err == nil || (*Evidence)(&want).check() == nil) {
		t.Fatalf("%.200q: %v, by encoding/json: %v", text, err, slow)
	}
	if err == nil && !reflect.DeepEqual(got, Evidence(want)) {
		t.Errorf("%.200q is read as %+v, by encoding/json as %+v", text, got, want)
	}
}

func TestLogs(t *testing.T) {
	for text, want := range map[string]bool{
		`{"vm":{"log":"AAAA"},"host":{"log":"BBBB"}}`: true, `{"host":{"log":"BBBB"},"vm":{"log":"AAAA"}}`: true,
		`{"vm":{"log":"AA\/A"},"host":{"log":""}}`: true, `{"vm":{"pcrs":{},"log":"////"}}`: true,
		`{"vm":{"log":"AAA"}}`: false, `{"vm":{"log":"AAB="}}`: false, "{\"vm\":{\"log\":\"AA\nAA\"}}": false,
		`{"vm":{"log":"null"}}`: true, `{"vm":{"log":"é"}}`: false, `{"vm":{"log":7}}`: false, `{"vm":{"log":["AAAA"]}}`: false,
		`{"log":"AAAA"}`: false, `{"binding":{"log":"AAAA"}}`: false, `{"vm":{"quote":{"log":"AAAA"}}}`: false,
		`{"vm":{"pcrs":{"vm":{"log":"aaaa"}}}}`: false, `{"vm":{"log":"AAAA"},"vm":{"log":"BBBB"}}`: false,
		`{"vm":{"log":"AAAA","log":"AAAA"}}`: false, `[{"vm":{"log":"AAAA"}}]`: false, `{"vm":{"log":"AAAA}}`: false,
		`{"vm":["log","AAAA"]}`: false, `{"vm":{"log":"AAAA"}}"`: false, `{"vm":{"log":"AAAA"}} "log":"AAAA"`: false,
	} {
		var ev Evidence
		if err := decode([]byte(text), &ev); (err == nil) != want {
			t.Errorf("%s: %v, want it to be read: %v", text, err, want)
		}
		sameLogs(t, []byte(text))
	}
	q, err := ParseQuestion([]byte(`{"evidence":{"vm":{"log":"AAAA"}},"nonce":"","policy":{"vm":{"log":"AAAA"}}}`))
	if !errors.Is(err, ErrFormat) {
		t.Errorf("a policy with a log for its log: %+v, %v", q, err)
	}
}
