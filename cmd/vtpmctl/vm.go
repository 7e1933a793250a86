// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"strings"
	"text/tabwriter"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/vtpm/door"
)

// defaultHostd is where the unit of the host's daemon puts its door for operators.
const defaultHostd = "/run/hwvtpm/hostd.sock"

// ask asks the host's daemon.
func (inv *invocation) ask(ctx context.Context, c *door.Client, op string, body, result any) error {
	ctx, cancel := context.WithTimeout(ctx, inv.timeout)
	defer cancel()
	err := c.Call(ctx, op, body, result)
	switch door.Code(err) {
	case door.CodeNotFound:
		return fmt.Errorf("%w: %w", coproc.ErrNotFound, err)
	case door.CodeDenied:
		return fmt.Errorf("%w: %w", coproc.ErrDenied, err)
	}
	return err
}

// withHostd calls f with a client of the host's daemon.
func (inv *invocation) withHostd(ctx context.Context, f func(*door.Client) error) error {
	path := inv.hostd
	for _, other := range []string{inv.con.getenv("HWVTPM_HOSTD"), defaultHostd} {
		if path == "" {
			path = other
		}
	}
	conn, err := (&net.Dialer{Timeout: inv.timeout}).DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("%w (is vtpm-hostd running? Its socket is given by --hostd or HWVTPM_HOSTD)", err)
	}
	c := door.NewClient(conn)
	defer c.Close()
	return f(c)
}

// hostStatus shows how the host's daemon is.
func (inv *invocation) hostStatus(ctx context.Context) error {
	var s door.Status
	err := inv.withHostd(ctx, func(c *door.Client) error { return inv.ask(ctx, c, door.OpStatus, nil, &s) })
	if err != nil {
		return err
	}
	if inv.json {
		return inv.printJSON(s)
	}
	rows := [][2]string{
		{"host", s.Host}, {"certified until", ends(s.AIK.Ends)}, {"coprocessor", orDash(s.Card)},
		{"certified until", ends(s.CardAIK.Ends)}, {"machines", fmt.Sprint(s.VMs)},
	}
	for _, p := range s.Problems {
		rows = append(rows, [2]string{"problem", printable(p)})
	}
	return inv.printRows(rows)
}

// vmList shows the machines that have a slot.
func (inv *invocation) vmList(ctx context.Context) error {
	all := []door.VM{}
	err := inv.withHostd(ctx, func(c *door.Client) error {
		var names []string
		if err := inv.ask(ctx, c, door.OpVMs, nil, &names); err != nil {
			return err
		}
		for _, name := range names {
			var vm door.VM
			if err := inv.ask(ctx, c, door.OpVM, door.VMRequest{Name: name}, &vm); door.Code(err) == door.CodeNotFound {
				continue // destroyed meanwhile
			} else if err != nil {
				return err
			}
			all = append(all, vm)
		}
		return nil
	})
	if err != nil || inv.json {
		return orJSON(err, inv, all)
	}
	w := tabwriter.NewWriter(inv.con.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSTATE\tCERTIFIED EKS\tAIK UNTIL")
	for _, vm := range all {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", vm.Name, stateOf(&vm), len(vm.EKs), aikEnds(&vm))
	}
	return w.Flush()
}

func orJSON(err error, inv *invocation, v any) error {
	if err != nil {
		return err
	}
	return inv.printJSON(v)
}

// vmShow shows one machine.
func (inv *invocation) vmShow(ctx context.Context) error {
	var vm door.VM
	err := inv.withHostd(ctx, func(c *door.Client) error {
		return inv.ask(ctx, c, door.OpVM, door.VMRequest{Name: inv.args[0]}, &vm)
	})
	if err != nil || inv.json {
		return orJSON(err, inv, vm)
	}
	rows := [][2]string{{"name", vm.Name}, {"state", stateOf(&vm)}}
	for _, ek := range vm.EKs {
		text := "certificate can't be read"
		if cert, err := x509.ParseCertificate(ek.Certificate); err == nil {
			text = fmt.Sprintf("%s, certificate %s", cert.PublicKeyAlgorithm, cert.SerialNumber.Text(16))
		}
		rows = append(rows, [2]string{fmt.Sprintf("EK %#x", ek.Handle), text})
	}
	return inv.printRows(append(rows, [2]string{"AIK until", aikEnds(&vm)}))
}

func stateOf(vm *door.VM) string {
	if vm.Open {
		return "open"
	}
	return "closed"
}

// aikEnds tells until when the attestation key's certificate is good that was seen last.
func aikEnds(vm *door.VM) string {
	block, _ := pem.Decode([]byte(vm.AIK))
	if block == nil {
		return "-"
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "-"
	}
	return ends(cert.NotAfter)
}

func ends(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return timeText(&t)
}

func orDash(s string) string {
	if strings.TrimSpace(s) == "" {
		return "-"
	}
	return s
}
