// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"hwvtpm/guest/attester"
)

func (inv *invocation) attest(ctx context.Context) error {
	if err := attester.Enrolled(inv.dir); err != nil {
		return err
	}
	log, err := inv.readLog()
	if err != nil {
		return err
	}
	return inv.use(inv.dir, func(a *attester.Attester) error {
		host, err := inv.openWay(ctx)
		if err != nil {
			return err
		}
		defer host.Close()
		m, err := a.Machine(ctx, inv.nonce, inv.selection, log)
		if err != nil {
			return err
		}
		ev, err := attester.Complete(ctx, host, m, inv.nonce, inv.mode)
		if err != nil {
			return err
		}
		text, err := ev.Marshal()
		if err != nil {
			return err
		}
		_, err = inv.con.out.Write(text)
		return err
	})
}

func (inv *invocation) readLog() ([]byte, error) {
	switch inv.eventLog {
	case "":
		return attester.ReadFirmwareLog()
	case "none":
		return nil, nil
	}
	return attester.ReadLog(inv.eventLog)
}
