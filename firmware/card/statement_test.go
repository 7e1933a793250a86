// SPDX-License-Identifier: Apache-2.0

package card

import (
	"testing"

	"hwvtpm/coproc/abi"
)

// verified reads a statement that the card has signed.
func verified(t testing.TB, r *rig, b []byte) abi.Statement {
	t.Helper()
	der, _, err := do(r.admin, abi.OpCardKey, 0, nil)
	must(t, err)
	pub, serial, err := abi.ParseCardKey(der)
	must(t, err)
	st, err := abi.VerifyStatement(pub, b)
	must(t, err)
	if st.Serial != serial || serial != r.serial {
		t.Errorf("statement of card %x, this is %x", st.Serial, serial)
	}
	return st
}

func (r *rig) statement(kind abi.StatementType, number uint32) ([]byte, error) {
	req := abi.StatementRequest{Type: kind, Nonce: [32]byte{7}}
	b, _, err := do(r.admin, abi.OpStatement, number, abi.AppendStatementRequest(nil, &req))
	return b, err
}

func TestStatements(t *testing.T) {
	cfg := fakeConfig(t)
	r := openCard(t, cfg)
	info := r.create("a")
	r.open("a").want(t, "add", "1")

	b, err := r.statement(abi.StatementEK, info.Number)
	must(t, err)
	st := verified(t, r, b)
	ek, err := abi.ParseEKBody(st.Body)
	must(t, err)
	if st.Type != abi.StatementEK || st.Slot != info.ID || st.Nonce != [32]byte{7} ||
		ek.AccessKey != info.AccessKey || ek.Generation != 2 || abi.EKDigest(ek.EKs) != info.EKNames {
		t.Errorf("EK statement %+v: %+v", st, ek)
	}

	b, err = r.statement(abi.StatementHealth, abi.CardSlot)
	must(t, err)
	st = verified(t, r, b)
	h, err := abi.ParseCardHealth(st.Body)
	must(t, err)
	if st.Type != abi.StatementHealth || st.Slot != [16]byte{} || h.Slots != 1 || h.Live != 1 ||
		h.Firmware == [32]byte{} || h.RollbackProtection != abi.ProtectionFile || h.AnchorCounter == 0 {
		t.Errorf("health statement %+v: %+v", st, h)
	}
	serial := r.serial
	must(t, r.Close())
	if r = openCard(t, cfg); r.serial != serial {
		t.Errorf("serial %x after a restart, was %x", r.serial, serial)
	}
}

func TestEraseReceipt(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	info := r.create("a")
	b, err := r.destroy("a")
	must(t, err)
	st := verified(t, r, b)
	body, err := abi.ParseEraseBody(st.Body)
	must(t, err)
	if st.Type != abi.StatementErase || st.Slot != info.ID || st.Nonce != [32]byte{1} ||
		body.Name != "a" || body.Generation != 1 {
		t.Errorf("receipt %+v: %+v", st, body)
	}
}

// Nobody gets a receipt for what was not destroyed, or anything that has no type.
func TestStatementsThatAreNotMade(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	info := r.create("a")
	for _, tc := range []struct {
		kind   abi.StatementType
		number uint32
		want   abi.Status
	}{
		{abi.StatementErase, info.Number, abi.StatusBadField},
		{abi.StatementErase, abi.CardSlot, abi.StatusBadField},
		{abi.StatementHealth, info.Number, abi.StatusBadField},
		{abi.StatementEK, abi.CardSlot, abi.StatusNoSlot},
		{abi.StatementEK, 99, abi.StatusNoSlot},
		{0, info.Number, abi.StatusBadField},
		{2, info.Number, abi.StatusBadField},
		{77, abi.CardSlot, abi.StatusBadField},
	} {
		_, err := r.statement(tc.kind, tc.number)
		wantStatus(t, err, tc.want)
	}
}
