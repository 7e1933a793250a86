// SPDX-License-Identifier: Apache-2.0

package hostpcr

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
)

// bank is a PCR bank that can be read. The order is that of a quote.
type bank struct {
	set abi.Banks
	alg tpm2.TPMIAlgHash
}

var banks = [...]bank{
	{abi.BankSHA1, tpm2.TPMAlgSHA1},
	{abi.BankSHA256, tpm2.TPMAlgSHA256},
	{abi.BankSHA384, tpm2.TPMAlgSHA384},
	{abi.BankSHA512, tpm2.TPMAlgSHA512},
}

// tries is how often to read and quote again if a PCR changes in between.
const tries = 3

// Reading is what the host's TPM said at one moment, with what is thought of it. It
// is not changed any more.
type Reading struct {
	Begun  time.Time     // before the TPM was asked
	Values coproc.PCRMap // of all banks that it uses and this package knows
	Quote  Quote         // of these values
	Log    []byte        // the firmware's event log, nil if it could not be read
	Banks  []BankVerdict // of each bank in Values

	logErr    error
	allowSHA1 bool
}

// BankVerdict tells whether the event log leads to the values of a bank.
type BankVerdict struct {
	Bank     abi.Banks
	Replayed bool
	Reason   string // why not
}

// take does one reading.
func (h *Host) take(b *batch) (*Reading, error) {
	r := &Reading{allowSHA1: h.cfg.AllowSHA1}
	err := h.cfg.Turn(func(tpm transport.TPM, ak AK) error { return h.ask(r, tpm, ak, b) })
	if err != nil {
		return nil, err
	}
	h.judge(r)
	return r, nil
}

// ask has the TPM give values and a quote that agree.
func (h *Host) ask(r *Reading, tpm transport.TPM, ak AK, b *batch) error {
	r.Begun = time.Now()
	used, err := allocated(tpm)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		if r.Values, err = values(tpm, used); err != nil {
			return err
		}
		if r.Quote, err = quote(tpm, ak, used, b); err != nil {
			return err
		}
		err = r.Quote.Verify(h.cfg.AK.Public, &r.Values)
		if err == nil || try == tries || !errors.Is(err, errOtherValues) {
			return err
		}
	}
}

// judge holds a reading against the event log.
func (h *Host) judge(r *Reading) {
	if h.cfg.Log == nil {
		r.logErr = errors.New("there is none")
	} else {
		r.Log, r.logErr = h.cfg.Log()
	}
	if r.logErr == nil {
		r.Banks, r.logErr = Replay(r.Log, &r.Values)
	}
}

// Map gives the values that may be mapped: those of every bank that the event log
// leads to. There is at least one better than SHA-1, unless that was allowed, and
// none better than SHA-1 that the log contradicts. The error says what is wrong
// with the host, and is ErrLog or ErrWeak.
func (r *Reading) Map() (coproc.PCRMap, error) {
	var m coproc.PCRMap
	if r.logErr != nil {
		return m, fmt.Errorf("%w: %w", ErrLog, r.logErr)
	}
	for _, v := range r.Banks {
		if !v.Replayed {
			if v.Bank != abi.BankSHA1 && v.Reason != notInLog {
				return coproc.PCRMap{}, fmt.Errorf("%w: bank %v: %s", ErrLog, v.Bank, v.Reason)
			}
			continue
		}
		if err := m.SetBank(v.Bank, bankValues(&r.Values, v.Bank)); err != nil {
			return coproc.PCRMap{}, err
		}
	}
	switch {
	case m.Banks() == 0:
		return m, fmt.Errorf("%w: it has events for no bank of the TPM", ErrLog)
	case m.Banks() == abi.BankSHA1 && !r.allowSHA1:
		return coproc.PCRMap{}, ErrWeak
	}
	return m, nil
}

// bankValues gives PCR 0 to 7 of a bank.
func bankValues(m *coproc.PCRMap, b abi.Banks) [][]byte {
	values := make([][]byte, abi.HostPCRs)
	for pcr := range values {
		values[pcr] = m.Value(b, pcr)
	}
	return values
}

// allocated asks which banks have PCR 0-7.
func allocated(tpm transport.TPM) ([]bank, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1}.Execute(tpm)
	if err != nil {
		return nil, fmt.Errorf("%w: which banks it has: %w", ErrTPM, err)
	}
	pcrs, err := rsp.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return nil, fmt.Errorf("%w: which banks it has: %w", ErrTPM, err)
	}
	var used []bank
	for _, b := range banks {
		for _, s := range pcrs.PCRSelections {
			if s.Hash == b.alg && len(s.PCRSelect) > 0 && s.PCRSelect[0] == 0xff {
				used = append(used, b)
				break
			}
		}
	}
	if len(used) == 0 {
		return nil, fmt.Errorf("%w: no bank has PCR 0-7", ErrTPM)
	}
	return used, nil
}

// selection selects the PCRs of a bit map in some banks.
func selection(used []bank, pcrs byte) tpm2.TPMLPCRSelection {
	var l tpm2.TPMLPCRSelection
	for _, b := range used {
		l.PCRSelections = append(l.PCRSelections, tpm2.TPMSPCRSelection{Hash: b.alg, PCRSelect: []byte{pcrs, 0, 0}})
	}
	return l
}

func values(tpm transport.TPM, used []bank) (m coproc.PCRMap, err error) {
	for _, b := range used {
		values, err := readBank(tpm, b)
		if err != nil {
			return m, fmt.Errorf("%w: PCRs of the bank %v: %w", ErrTPM, b.set, err)
		}
		if err := m.SetBank(b.set, values); err != nil {
			return m, fmt.Errorf("%w: %w", ErrTPM, err)
		}
	}
	return m, nil
}

// readBank reads PCR 0-7 of a bank, in as many commands as the TPM wants: it may
// give fewer than it is asked for (Part 3, 22.4).
func readBank(tpm transport.TPM, b bank) ([][]byte, error) {
	values := make([][]byte, abi.HostPCRs)
	for left := byte(0xff); left != 0; {
		rsp, err := tpm2.PCRRead{PCRSelectionIn: selection([]bank{b}, left)}.Execute(tpm)
		if err != nil {
			return nil, err
		}
		out := rsp.PCRSelectionOut.PCRSelections
		if len(out) != 1 || out[0].Hash != b.alg || len(out[0].PCRSelect) == 0 {
			return nil, errors.New("other PCRs than asked for")
		}
		got, digests := out[0].PCRSelect[0], rsp.PCRValues.Digests
		if got == 0 || got&^left != 0 {
			return nil, errors.New("other PCRs than asked for")
		}
		for pcr := range values {
			if got&(1<<pcr) == 0 {
				continue
			}
			if len(digests) == 0 {
				return nil, errors.New("fewer values than PCRs")
			}
			values[pcr], digests = digests[0].Buffer, digests[1:]
		}
		left &^= got
	}
	return values, nil
}
