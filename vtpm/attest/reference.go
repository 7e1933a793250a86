// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"hwvtpm/coproc/abi"
)

// judge compares a layer, whose values were quoted, with reference values. log is
// nil if there is none that leads to the values.
func (l *LayerPolicy) judge(values PCRs, log *bootLog) error {
	for _, check := range []func(PCRs, *bootLog) error{l.judgePCRs, l.judgeAggregate, l.judgeEvents, l.judgeSecureBoot} {
		if err := check(values, log); err != nil {
			return err
		}
	}
	return nil
}

func (l *LayerPolicy) judgePCRs(values PCRs, _ *bootLog) error {
	if len(l.PCRs) == 0 {
		return nil
	}
	strong := false
	for _, b := range banks {
		want := l.PCRs[b.name]
		if len(want) == 0 || len(values[b.name]) == 0 {
			continue
		}
		strong = strong || b.strong()
		for _, number := range slices.Sorted(maps.Keys(want)) {
			got := values[b.name][number]
			switch {
			case got == nil:
				return fmt.Errorf("PCR %s of %s is not quoted", number, b.name)
			case !among(got, want[number]):
				return fmt.Errorf("PCR %s of %s is %s, which is not allowed", number, b.name, got)
			}
		}
	}
	if !strong {
		return fmt.Errorf("none of the policy's banks %s that is stronger than SHA-1 is quoted", strings.Join(slices.Sorted(maps.Keys(l.PCRs)), ", "))
	}
	return nil
}

func among(v []byte, allowed []Hex) bool {
	return slices.ContainsFunc(allowed, func(a Hex) bool { return bytes.Equal(a, v) })
}

func (l *LayerPolicy) judgeAggregate(values PCRs, _ *bootLog) error {
	if len(l.BootAggregates) == 0 {
		return nil
	}
	h := sha256.New()
	for n := range 10 {
		v := values.Get("sha256", n)
		if v == nil {
			return fmt.Errorf("the boot aggregate needs PCR %d of sha256, which is not quoted", n)
		}
		h.Write(v)
	}
	if sum := Hex(h.Sum(nil)); !among(sum, l.BootAggregates) {
		return fmt.Errorf("the boot aggregate is %s, which is not allowed", sum)
	}
	return nil
}

// judgeEvents wants one of the policy's strong banks to be replayed, and judges all
// that are.
func (l *LayerPolicy) judgeEvents(values PCRs, log *bootLog) error {
	if len(l.Events) == 0 {
		return nil
	}
	if log == nil {
		return errors.New("there is no event log to be judged")
	}
	strong := false
	for _, b := range banks {
		want := l.Events[b.name]
		if len(want) == 0 || !slices.Contains(log.banks, b.name) {
			continue
		}
		strong = strong || b.strong()
		for _, number := range slices.Sorted(maps.Keys(want)) {
			if values[b.name][number] == nil {
				return fmt.Errorf("events of PCR %s of %s are judged, and it is not quoted", number, b.name)
			}
			if err := log.judge(b.name, number, want[number]); err != nil {
				return err
			}
		}
	}
	if !strong {
		return errors.New("the event log leads to none of the policy's banks that is stronger than SHA-1")
	}
	return nil
}

// judge compares the events of a PCR. None at all are too few where some are allowed:
// firmware ends each of PCR 0-7 with a separator.
func (l *bootLog) judge(bank, number string, allowed []Hex) error {
	some := false
	for _, e := range l.events[bank] {
		if strconv.Itoa(e.Index) != number {
			continue
		}
		if some = true; !among(e.Digest, allowed) {
			return fmt.Errorf("the event %s of PCR %s in %s is not allowed", Hex(e.Digest), number, bank)
		}
	}
	if !some && len(allowed) > 0 {
		return fmt.Errorf("the event log has no event of PCR %s in %s", number, bank)
	}
	return nil
}

func (l *LayerPolicy) judgeSecureBoot(_ PCRs, log *bootLog) error {
	if !l.SecureBoot {
		return nil
	}
	if log == nil {
		return errors.New("there is no event log to show that Secure Boot was on")
	}
	on, err := log.secureBoot()
	if err == nil && !on {
		err = errors.New("the firmware had Secure Boot off")
	}
	return err
}

func (c *CardPolicy) judge(h *abi.CardHealth) error {
	switch {
	case len(c.Firmware) > 0 && !among(h.Firmware[:], c.Firmware):
		return fmt.Errorf("the card's firmware is %x, which is not allowed", h.Firmware)
	case c.HardwareKey && h.KeyProtection != abi.ProtectionTPM:
		return errors.New("the card's storage key is in a file, not with the host's TPM")
	case c.HardwareCounter && h.RollbackProtection != abi.ProtectionTPM:
		return errors.New("the card's counter against rollback is in a file, not in the host's TPM")
	}
	return nil
}

// judgeNames compares who speaks with whom the policy knows.
func (p *Policy) judgeNames(r *Result) error {
	for _, who := range []struct {
		what, name string
		allowed    []string
	}{{"machine", r.Machine, p.Machines}, {"host", r.Host, p.Hosts}, {"coprocessor", r.Card, p.Cards}} {
		if len(who.allowed) > 0 && !slices.Contains(who.allowed, who.name) {
			return fmt.Errorf("the %s %s is not one of the policy's", who.what, who.name)
		}
	}
	return nil
}
