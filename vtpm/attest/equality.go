// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"hwvtpm/coproc/abi"
)

// equality judges what PCR 0-7 of the machine are.
func (j *judgement) equality() {
	mode, modes := j.ev.PCRMap, j.policy.modes()
	var err error
	if !slices.Contains(modes, mode) {
		err = fmt.Errorf("the mode is %s, and accepted is only %s", mode, join(modes))
	}
	j.res.add(ClaimMode, true, fmt.Sprintf("the mode is %s", mode), err)
	switch {
	case mode != ModeMap:
		j.res.none(ClaimEqual, false, "in mode %s PCR 0-7 are the guest firmware's", mode)
	case j.res.ready(ClaimEqual, true, ClaimVMPCRs, ClaimHostPCRs):
		j.res.add(ClaimEqual, true, "PCR 0-7 of the machine are the host's, in "+strings.Join(j.ev.Host.PCRs.names(), ", "),
			mapped(j.ev.VM.PCRs, j.ev.Host.PCRs))
	}
}

func join(modes []Mode) string {
	var names []string
	for _, m := range modes {
		names = append(names, string(m))
	}
	return strings.Join(names, ", ")
}

// mapped checks that PCR 0-7 are equal in every bank that the host quotes, and that
// in every other bank they are what stands for "not mapped": else the guest could
// have made values of its own there.
func mapped(vm, host PCRs) error {
	strong := false
	for i := range banks {
		b := &banks[i]
		inVM, inHost := len(vm[b.name]) > 0, len(host[b.name]) > 0
		switch {
		case inHost && !inVM:
			return fmt.Errorf("the host quotes the bank %s, the machine does not", b.name)
		case !inVM:
			continue
		}
		if err := mappedBank(b, vm, host, inHost); err != nil {
			return err
		}
		strong = strong || inHost && b.strong()
	}
	if !strong {
		return errors.New("both have no bank stronger than SHA-1")
	}
	return nil
}

func mappedBank(b *bank, vm, host PCRs, inHost bool) error {
	for n := range firmwarePCRs {
		got, want := vm.Get(b.name, n), host.Get(b.name, n)
		whose := "the host's"
		if !inHost {
			want, whose = abi.UnmappedPCR(b.abi), "marked as not mapped, though the host does not quote this bank"
		}
		switch {
		case got == nil || want == nil:
			return fmt.Errorf("PCR %d of %s is not quoted by both", n, b.name)
		case !bytes.Equal(got, want):
			return fmt.Errorf("PCR %d of %s is not %s", n, b.name, whose)
		}
	}
	return nil
}

// references judges by the policy.
func (j *judgement) references() {
	r, p := j.res, j.policy
	switch {
	case len(p.Machines)+len(p.Hosts)+len(p.Cards) == 0:
		r.none(ClaimPolicyNames, false, "the policy names no machine, host or coprocessor")
	case r.ready(ClaimPolicyNames, true, ClaimAIK):
		r.add(ClaimPolicyNames, true, "machine, host and coprocessor are as the policy has them", p.judgeNames(r))
	}
	j.layerReferences(ClaimPolicyVM, ClaimVMPCRs, &p.VM, j.ev.VM.PCRs, j.vmLog)
	var values PCRs
	if j.ev.Host != nil {
		values = j.ev.Host.PCRs
	}
	j.layerReferences(ClaimPolicyHost, ClaimHostPCRs, &p.Host, values, j.hostLog)
	switch {
	case p.Card.empty():
		r.none(ClaimPolicyCard, false, "the policy asks nothing of the coprocessor")
	case r.ready(ClaimPolicyCard, true, ClaimHealth):
		r.add(ClaimPolicyCard, true, "the coprocessor is as the policy has it", p.Card.judge(j.health))
	}
}

func (j *judgement) layerReferences(name, needs Name, p *LayerPolicy, values PCRs, log *bootLog) {
	switch {
	case p.empty():
		j.res.none(name, false, "the policy has no reference values")
	case j.res.ready(name, true, needs):
		j.res.add(name, true, "the values are as the policy has them", p.judge(values, log))
	}
}
