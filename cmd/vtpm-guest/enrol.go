// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"hwvtpm/control/client"
	"hwvtpm/guest/attester"
	"hwvtpm/guest/attester/atcontrol"
	"hwvtpm/vtpm/tpmlink"
)

// use opens TPM and folder for f.
func (inv *invocation) use(dir string, f func(*attester.Attester) error) error {
	tpm, err := tpmlink.Open(inv.tpm)
	if err != nil {
		return fmt.Errorf("TPM: %w", err)
	}
	defer tpm.Close()
	a, err := attester.Open(tpm, dir)
	if err != nil {
		return err
	}
	defer a.Close()
	return f(a)
}

func (inv *invocation) enrol(ctx context.Context) error {
	return inv.use(inv.dir, func(a *attester.Attester) error {
		if had, err := a.Identity(); inv.ifDue && err == nil && !had.Due(time.Now()) {
			return nil
		}
		token, err := inv.token()
		if err != nil {
			return err
		}
		host, err := inv.openWay(ctx)
		if err != nil {
			return err
		}
		o := attester.EnrolOptions{Name: inv.name, Token: token}
		var at attester.Authority
		if host != nil {
			defer host.Close()
			o.Host, at = host, attester.AtDoor(host)
		}
		if inv.control != "" {
			c, err := inv.controlClient()
			if err != nil {
				return err
			}
			defer c.Close()
			at = atcontrol.New(c)
		}
		id, err := a.Enrol(ctx, at, o)
		if err != nil {
			return err
		}
		fmt.Fprintf(inv.con.err, "vtpm-guest: enrolled as %s until %s\n", id.VM, id.Certificate.NotAfter.Local().Format(time.DateTime))
		return nil
	})
}

const maxToken = 256 // bytes; more than the control server takes

// token reads the file with the token, if there is to be one.
func (inv *invocation) token() (string, error) {
	if inv.tokenFile == "" {
		return "", nil
	}
	f, err := os.Open(inv.tokenFile)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if token == "" || len(text) > maxToken {
		return "", errors.New(inv.tokenFile + " has no token")
	}
	return token, nil
}

func (inv *invocation) controlClient() (*client.Client, error) {
	roots, err := client.ReadRoots(inv.controlCA)
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{URL: inv.control, Roots: roots})
}
