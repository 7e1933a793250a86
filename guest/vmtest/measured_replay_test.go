// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// firmwarePCRs is how many PCRs belong to the firmware: 0 to 7.
const firmwarePCRs = 8

// Numbers of the event log (TCG PC Client Platform Firmware Profile, section
// 10), and of TCG's algorithm registry.
const (
	evNoAction = 3
	algSHA256  = 0x000b
)

var errShortLog = errors.New("the log ends within an event")

// logReader takes little-endian values off the front of an event log.
type logReader struct {
	rest []byte
	err  error
}

func (r *logReader) take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.rest) {
		r.err = errShortLog
		return make([]byte, min(max(n, 0), 64))
	}
	var b []byte
	b, r.rest = r.rest[:n], r.rest[n:]
	return b
}

func (r *logReader) u16() uint16 { return binary.LittleEndian.Uint16(r.take(2)) }
func (r *logReader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }

// replay computes what an event log says of the firmware's PCRs in SHA-256, and
// counts the events that it measured.
func replay(log []byte) (pcrs [firmwarePCRs]digest, events int, err error) {
	r := &logReader{rest: log}
	sizes := r.specID()
	for r.err == nil && len(r.rest) > 0 {
		index, kind := r.u32(), r.u32()
		value, ok := r.digests(sizes)
		r.take(int(r.u32())) // what was measured
		if r.err != nil || kind == evNoAction || index >= firmwarePCRs {
			continue
		}
		if !ok {
			return pcrs, events, fmt.Errorf("event %d has no SHA-256 digest", events)
		}
		pcrs[index] = sha256.Sum256(append(pcrs[index][:], value[:]...))
		events++
	}
	return pcrs, events, r.err
}

// specID reads the first event, which has an old form and names the digests that
// the others have (Firmware Profile, section 10.4.5.1, "Specification ID Version
// Event").
func (r *logReader) specID() map[uint16]int {
	r.take(4 + 4 + 20) // PCR, type, SHA-1
	event := &logReader{rest: r.take(int(r.u32()))}
	if string(event.take(16)) != "Spec ID Event03\x00" {
		r.err = errors.New("the log is not of the crypto agile form")
		return nil
	}
	event.take(4 + 1 + 1 + 1 + 1) // class, version
	sizes := map[uint16]int{}
	for range min(event.u32(), 16) {
		alg := event.u16()
		sizes[alg] = int(event.u16())
	}
	return sizes
}

// digests reads a TPML_DIGEST_VALUES.
func (r *logReader) digests(sizes map[uint16]int) (value digest, ok bool) {
	for range min(r.u32(), 16) {
		alg := r.u16()
		size, known := sizes[alg]
		if !known {
			r.err = fmt.Errorf("a digest of algorithm %#x, which the log does not announce", alg)
			return value, false
		}
		if b := r.take(size); alg == algSHA256 && r.err == nil {
			value, ok = digest(b), true
		}
	}
	return value, ok
}

// The log that OVMF wrote for a machine of TestOVMFMeasures leads to the PCRs that
// this machine's TPM quoted, and no part of it does.
func TestRecordedLogReplays(t *testing.T) {
	log, err := os.ReadFile("testdata/ovmf-eventlog.bin")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/ovmf-eventlog.pcrs")
	if err != nil {
		t.Fatal(err)
	}
	pcrs, events, err := replay(log)
	if err != nil || events == 0 {
		t.Fatalf("replay: %d events, %v", events, err)
	}
	if got := formatPCRs(pcrs); got != string(text) {
		t.Errorf("the log leads to\n%s\nbut the TPM had\n%s", got, text)
	}
	for n := range log {
		if cut, _, err := replay(log[:n]); err == nil && cut == pcrs {
			t.Errorf("the first %d of %d bytes lead to the same PCRs", n, len(log))
		}
	}
}

// formatPCRs is one line for each PCR: its number and value.
func formatPCRs(pcrs [firmwarePCRs]digest) string {
	var b strings.Builder
	for i, v := range pcrs {
		fmt.Fprintf(&b, "%d %s\n", i, hex.EncodeToString(v[:]))
	}
	return b.String()
}
