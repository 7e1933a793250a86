// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"hwvtpm/coproc/abi"
)

// slotJSON is a slot for programs. Members are only added, never renamed.
type slotJSON struct {
	Name       string     `json:"name"`
	Number     uint32     `json:"number"`
	ID         string     `json:"id"`
	State      string     `json:"state"`
	Keys       string     `json:"keys"`
	Banks      string     `json:"banks"`
	Generation uint64     `json:"generation"`
	Epoch      uint64     `json:"epoch"`
	Created    *time.Time `json:"created,omitempty"`
	LastUsed   *time.Time `json:"last-used,omitempty"`
	Commands   uint64     `json:"commands"`
	Restarts   uint64     `json:"restarts"`
	WorkerPID  uint32     `json:"worker-pid,omitempty"`
	AccessKey  string     `json:"access-key"` // public half, base64
	EKDigest   string     `json:"ek-digest"`

	EKCertificates []certificateJSON `json:"ek-certificates,omitempty"` // of slot show, for administrators
}

func slotOf(i abi.SlotInfo) slotJSON {
	return slotJSON{
		Name: i.Name, Number: i.Number, ID: hex.EncodeToString(i.ID[:]), State: i.Life.String(),
		Keys: i.Keys.String(), Banks: i.Banks.String(), Generation: i.Generation, Epoch: i.Epoch,
		Created: timeOf(i.Created), LastUsed: timeOf(i.LastUsed),
		Commands: i.Commands, Restarts: i.Restarts, WorkerPID: i.WorkerPID,
		AccessKey: base64.StdEncoding.EncodeToString(i.AccessKey[:]), EKDigest: hex.EncodeToString(i.EKNames[:]),
	}
}

// timeOf gives nil for a time that is not known, or that RFC 3339 can't say.
func timeOf(seconds int64) *time.Time {
	const year10000 = 253402300800
	if seconds <= 0 || seconds >= year10000 {
		return nil
	}
	t := time.Unix(seconds, 0).UTC()
	return &t
}

func timeText(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

func (inv *invocation) printJSON(v any) error {
	enc := json.NewEncoder(inv.con.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (inv *invocation) printList(all []abi.SlotInfo) error {
	list := make([]slotJSON, 0, len(all))
	for _, i := range all {
		list = append(list, slotOf(i))
	}
	if inv.json {
		return inv.printJSON(list)
	}
	w := tabwriter.NewWriter(inv.con.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tNUMBER\tSTATE\tGENERATION\tEPOCH\tCOMMANDS\tRESTARTS\tLAST USED")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%s\n",
			s.Name, s.Number, s.State, s.Generation, s.Epoch, s.Commands, s.Restarts, timeText(s.LastUsed))
	}
	return w.Flush()
}

func (inv *invocation) printSlot(i abi.SlotInfo, certs ...certificateJSON) error {
	s := slotOf(i)
	s.EKCertificates = certs
	if inv.json {
		return inv.printJSON(s)
	}
	rows := [][2]string{
		{"name", s.Name}, {"number", fmt.Sprint(s.Number)}, {"id", s.ID}, {"state", s.State},
		{"keys", s.Keys}, {"PCR banks", s.Banks},
		{"generation", fmt.Sprint(s.Generation)}, {"epoch", fmt.Sprint(s.Epoch)},
		{"created", timeText(s.Created)}, {"last used", timeText(s.LastUsed)},
		{"commands", fmt.Sprint(s.Commands)}, {"restarts", fmt.Sprint(s.Restarts)},
	}
	if s.WorkerPID != 0 {
		rows = append(rows, [2]string{"worker", fmt.Sprintf("process %d", s.WorkerPID)})
	}
	rows = append(rows, [2]string{"access key", s.AccessKey}, [2]string{"EK digest", s.EKDigest})
	for _, c := range certs {
		rows = append(rows, [2]string{"EK " + c.Handle, c.String()})
	}
	return inv.printRows(rows)
}

func (inv *invocation) printRows(rows [][2]string) error {
	w := tabwriter.NewWriter(inv.con.out, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(w, "%s:\t%s\n", r[0], r[1])
	}
	return w.Flush()
}
