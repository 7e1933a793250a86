// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
)

// statementJSON is a statement whose signature was verified.
type statementJSON struct {
	Type    string       `json:"type"`
	Time    *time.Time   `json:"time,omitempty"`
	Serial  string       `json:"serial"`
	Slot    string       `json:"slot,omitempty"` // id
	Nonce   string       `json:"nonce"`
	EK      *ekJSON      `json:"ek,omitempty"`
	Health  *cardJSON    `json:"health,omitempty"`
	Receipt *receiptJSON `json:"receipt,omitempty"`
	Signed  string       `json:"signed"`   // base64, with the signature
	CardKey string       `json:"card-key"` // base64, SubjectPublicKeyInfo
}

type ekJSON struct {
	Generation uint64          `json:"generation"`
	Epoch      uint64          `json:"epoch"`
	AccessKey  string          `json:"access-key"`
	Keys       []ekHandleNames `json:"keys"`
}

type ekHandleNames struct {
	Handle string `json:"handle"`
	Name   string `json:"name"`
}

type receiptJSON struct {
	Name       string `json:"name"`
	Generation uint64 `json:"generation"`
	Epoch      uint64 `json:"epoch"`
}

var statementNames = map[abi.StatementType]string{
	abi.StatementEK: "ek", abi.StatementErase: "erase", abi.StatementHealth: "health",
}

func statementOf(st admin.Signed) statementJSON {
	s := statementJSON{
		Type: statementNames[st.Type], Time: timeOf(st.Time), Serial: hex.EncodeToString(st.Serial[:]),
		Nonce:   hex.EncodeToString(st.Nonce[:]),
		Signed:  base64.StdEncoding.EncodeToString(st.Raw),
		CardKey: base64.StdEncoding.EncodeToString(st.Key.DER),
	}
	if st.Slot != ([16]byte{}) {
		s.Slot = hex.EncodeToString(st.Slot[:])
	}
	return s
}

// rows shows what all statements have in common.
func (s *statementJSON) rows() [][2]string {
	rows := [][2]string{
		{"signature", "good, by the key that the card calls its own; compare its serial number"},
		{"card", s.Serial}, {"time", timeText(s.Time)},
	}
	if s.Slot != "" {
		rows = append(rows, [2]string{"slot id", s.Slot})
	}
	return rows
}

func (inv *invocation) statementEK(ctx context.Context) error {
	return inv.withSlot(ctx, func(ctx context.Context, c *admin.Client, info abi.SlotInfo) error {
		out, err := newFile(inv.out)
		if err != nil {
			return err
		}
		defer out.drop()
		st, body, err := c.EKStatement(ctx, info)
		if err != nil {
			return err
		}
		s := statementOf(st)
		s.EK = &ekJSON{Generation: body.Generation, Epoch: body.Epoch,
			AccessKey: base64.StdEncoding.EncodeToString(body.AccessKey[:]), Keys: []ekHandleNames{}}
		rows := append(s.rows(), [2]string{"access key", s.EK.AccessKey})
		for _, ek := range body.EKs {
			k := ekHandleNames{Handle: fmt.Sprintf("0x%08x", ek.Handle), Name: hex.EncodeToString(ek.Name)}
			s.EK.Keys = append(s.EK.Keys, k)
			rows = append(rows, [2]string{"EK at " + k.Handle, k.Name})
		}
		return inv.finish(out, st, s, func() error { return inv.printRows(rows) })
	})
}

func (inv *invocation) statementHealth(ctx context.Context) error {
	return inv.withClient(ctx, func(ctx context.Context, c *admin.Client) error {
		out, err := newFile(inv.out)
		if err != nil {
			return err
		}
		defer out.drop()
		st, health, err := c.HealthStatement(ctx)
		if err != nil {
			return err
		}
		s, card := statementOf(st), healthOf(health)
		card.Serial = s.Serial
		s.Health = &card
		return inv.finish(out, st, s, func() error { return inv.printCard(card, s.rows()[:1]) })
	})
}

// finish keeps a statement in its file and prints it.
func (inv *invocation) finish(out *resultFile, st admin.Signed, s statementJSON, table func() error) error {
	if err := out.keep(st.Raw); err != nil {
		return err
	}
	if inv.json {
		return inv.printJSON(s)
	}
	return table()
}

func (inv *invocation) printReceipt(st admin.Signed, body abi.EraseBody) error {
	s := statementOf(st)
	s.Receipt = &receiptJSON{Name: body.Name, Generation: body.Generation, Epoch: body.Epoch}
	if inv.json {
		return inv.printJSON(s)
	}
	return inv.printRows(append(s.rows(), [2]string{"destroyed", body.Name}, [2]string{"generation", fmt.Sprint(body.Generation)}))
}
