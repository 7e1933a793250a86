// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"fmt"
	"slices"
	"strings"
)

// State is what became of a claim.
type State string

// The states. NotClaimed is also that of a claim that could not be judged.
const (
	Held       State = "held"
	Failed     State = "failed"
	NotClaimed State = "not claimed"
)

// Name names a claim. Names are only added, never changed.
type Name string

// The claims, in the order they are judged and listed.
const (
	ClaimVMChain     Name = "vm.chain"          // the vTPM AIK's certificate leads to a root
	ClaimChain       Name = "binding.chain"     // the EK's leads over card and host to a root
	ClaimRevocation  Name = "revocation"        // no certificate of both chains was revoked
	ClaimVMQuote     Name = "vm.quote"          // the vTPM AIK signed a quote
	ClaimVMFresh     Name = "vm.fresh"          // it answers the nonce
	ClaimVMPCRs      Name = "vm.pcrs"           // the values are those quoted
	ClaimVMLog       Name = "vm.log"            // the log leads to the values
	ClaimAIK         Name = "binding.aik"       // the vTPM AIK was proven beside this EK
	ClaimStatement   Name = "binding.statement" // the card vouches for the slot's EKs
	ClaimEK          Name = "binding.ek"        // the certified EK is one of them
	ClaimCard        Name = "binding.card"      // the host's TPM bound this card
	ClaimHealth      Name = "card.health"       // the card's own fresh word on itself
	ClaimHostQuote   Name = "host.quote"        // the host AIK signed a quote
	ClaimHostFresh   Name = "host.fresh"        // it was made for the machine's quote
	ClaimHostPCRs    Name = "host.pcrs"         // the values are those quoted
	ClaimHostLog     Name = "host.log"          // the log leads to the values
	ClaimMode        Name = "pcrs.mode"         // the mode is one that is accepted
	ClaimEqual       Name = "pcrs.equal"        // PCR 0-7 of the machine are the host's
	ClaimPolicyNames Name = "policy.names"      // machine, card and host are known
	ClaimPolicyVM    Name = "policy.vm"         // the machine's PCRs and log are as allowed
	ClaimPolicyHost  Name = "policy.host"       // the host's PCRs and log are as allowed
	ClaimPolicyCard  Name = "policy.card"       // the card is as allowed
)

// Claim is one statement that evidence makes, and what it came to.
type Claim struct {
	Name     Name   `json:"name"`
	State    State  `json:"state"`
	Required bool   `json:"required"`
	Reason   string `json:"reason"` // for people
}

// Result is the judgement of one piece of evidence. Names and values are there
// only if the claims that they come from held.
type Result struct {
	OK     bool    `json:"ok"` // all that is required held
	Claims []Claim `json:"claims"`

	Machine string `json:"machine,omitempty"` // by binding.aik
	Card    string `json:"card,omitempty"`    // serial, by binding.chain
	Host    string `json:"host,omitempty"`    // by binding.chain
	Slot    string `json:"slot,omitempty"`    // id, by binding.ek
	VMClock *Clock `json:"vm-clock,omitempty"`
	// HostClock goes back only if the host's TPM was cleared or is another.
	HostClock *Clock `json:"host-clock,omitempty"`
}

// Get gives a claim by its name.
func (r *Result) Get(name Name) Claim {
	i := slices.IndexFunc(r.Claims, func(c Claim) bool { return c.Name == name })
	if i < 0 {
		return Claim{Name: name, State: NotClaimed, Reason: "it was not judged"}
	}
	return r.Claims[i]
}

func (r *Result) held(name Name) bool { return r.Get(name).State == Held }

// add puts a claim at the end: failed if err is not nil.
func (r *Result) add(name Name, required bool, reason string, err error) bool {
	c := Claim{Name: name, State: Held, Required: required, Reason: reason}
	if err != nil {
		c.State, c.Reason = Failed, err.Error()
	}
	r.Claims = append(r.Claims, c)
	return err == nil
}

// none puts a claim at the end that is not claimed.
func (r *Result) none(name Name, required bool, format string, args ...any) {
	r.Claims = append(r.Claims, Claim{name, NotClaimed, required, fmt.Sprintf(format, args...)})
}

// ready says whether all the claims that another hangs on held; if not, that one is
// not claimed.
func (r *Result) ready(name Name, required bool, needs ...Name) bool {
	for _, n := range needs {
		if !r.held(n) {
			r.none(name, required, "it can't be judged without %s", n)
			return false
		}
	}
	return true
}

// unmet says whether a claim keeps evidence from holding.
func (c *Claim) unmet() bool { return c.State == Failed || c.Required && c.State != Held }

// settle decides OK: it needs every required claim, and no failed one.
func (r *Result) settle() {
	r.OK = len(r.Claims) > 0 && !slices.ContainsFunc(r.Claims, func(c Claim) bool { return c.unmet() })
}

// Unmet lists the claims that keep the evidence from holding, in their order.
func (r *Result) Unmet() []string {
	var names []string
	for _, c := range r.Claims {
		if c.unmet() {
			names = append(names, string(c.Name))
		}
	}
	return names
}

// why is the first unmet claim with its reason.
func (r *Result) why() string {
	i := slices.IndexFunc(r.Claims, func(c Claim) bool { return c.unmet() })
	if i < 0 {
		return "no claim was judged"
	}
	return fmt.Sprintf("%s: %s", r.Claims[i].Name, r.Claims[i].Reason)
}

// ranges writes ascending numbers as people do: 0-7, 14.
func ranges(numbers []int) string {
	var out []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		if j == i {
			out = append(out, fmt.Sprint(numbers[i]))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", numbers[i], numbers[j]))
		}
		i = j + 1
	}
	return strings.Join(out, ", ")
}
