// SPDX-License-Identifier: Apache-2.0

package hostpcr

import (
	"crypto"
	_ "crypto/sha1" // the oldest of the banks
	"errors"
	"fmt"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

// notInLog is the Reason of a bank that the log has no digests for, or whose digests
// go-eventlog does not read (SHA-512).
const notInLog = "the event log has no digests for it"

// logBanks are the banks that go-eventlog replays.
var logBanks = map[abi.Banks]struct {
	alg  register.HashAlg
	hash crypto.Hash
}{
	abi.BankSHA1:   {register.HashSHA1, crypto.SHA1},
	abi.BankSHA256: {register.HashSHA256, crypto.SHA256},
	abi.BankSHA384: {register.HashSHA384, crypto.SHA384},
}

// Replay tells of each bank of values whether a TCG event log leads to them. A bank
// counts only if all eight PCRs do, one without events by being zero. go-eventlog
// makes up for what some firmware forgets to log; what it adds then has fixed
// digests. The error is for a log that cannot be read.
func Replay(log []byte, values *coproc.PCRMap) (verdicts []BankVerdict, err error) {
	// The parser is not ours, and the log is the firmware's.
	defer func() {
		if p := recover(); p != nil {
			verdicts, err = nil, fmt.Errorf("event log cannot be parsed: %v", p)
		}
	}()
	if len(log) == 0 || len(log) > MaxLog {
		return nil, fmt.Errorf("event log of %d bytes", len(log))
	}
	parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{AllowPadding: true})
	if err != nil {
		return nil, fmt.Errorf("event log cannot be parsed: %w", err)
	}
	for _, b := range banks {
		if values.Banks()&b.set == 0 {
			continue
		}
		v := BankVerdict{Bank: b.set}
		if err := replayBank(parsed, values, b.set); err != nil {
			v.Reason = err.Error()
		} else {
			v.Replayed = true
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, nil
}

func replayBank(log *tcg.EventLog, values *coproc.PCRMap, b abi.Banks) error {
	k, ok := logBanks[b]
	if !ok {
		return errors.New(notInLog)
	}
	events, digests := [abi.HostPCRs]int{}, 0
	for _, e := range log.Events(k.alg) {
		if e.Type == tcg.NoAction || e.Index < 0 || e.Index >= abi.HostPCRs {
			continue
		}
		events[e.Index]++
		if len(e.Digest) > 0 {
			digests++
		}
	}
	if digests == 0 {
		return errors.New(notInLog)
	}
	var mrs []register.MR
	for pcr, n := range events {
		value := values.Value(b, pcr)
		// Verify takes any value of a PCR without events.
		if n == 0 && !allZero(value) {
			return fmt.Errorf("PCR %d has a value, and no events", pcr)
		}
		mrs = append(mrs, register.PCR{Index: pcr, Digest: value, DigestAlg: k.hash})
	}
	_, err := log.Verify(mrs)
	return err
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
