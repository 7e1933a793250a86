// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coprocd"
	"hwvtpm/internal/cli"
)

// withClient calls f with a client of the daemon, within the timeout.
func (inv *invocation) withClient(ctx context.Context, f func(context.Context, *admin.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, inv.timeout)
	defer cancel()
	conn, err := coprocd.Dial(ctx, inv.socket)
	if err != nil {
		return fmt.Errorf("%w (is coprocd running? Its socket is given by --socket or HWVTPM_SOCKET)", err)
	}
	defer conn.Close()
	return f(ctx, admin.New(conn))
}

// withSlot calls f with a client and the slot that the command names.
func (inv *invocation) withSlot(ctx context.Context, f func(context.Context, *admin.Client, abi.SlotInfo) error) error {
	return inv.withClient(ctx, func(ctx context.Context, c *admin.Client) error {
		info, err := c.Show(ctx, inv.args[0])
		if err != nil {
			return err
		}
		return f(ctx, c, info)
	})
}

func (inv *invocation) list(ctx context.Context) error {
	return inv.withClient(ctx, func(ctx context.Context, c *admin.Client) error {
		all, err := c.List(ctx)
		if err != nil {
			return err
		}
		return inv.printList(all)
	})
}

func (inv *invocation) show(ctx context.Context) error {
	return inv.withSlot(ctx, func(ctx context.Context, c *admin.Client, info abi.SlotInfo) error {
		certs, err := certificates(ctx, c, info)
		if err != nil {
			return err
		}
		return inv.printSlot(info, certs...)
	})
}

// certify certifies a slot's endorsement keys, and shows the slot as it is then.
func (inv *invocation) certify(ctx context.Context) error {
	return inv.withSlot(ctx, func(ctx context.Context, c *admin.Client, info abi.SlotInfo) error {
		if err := c.Certify(ctx, info); err != nil {
			return err
		}
		return inv.show(ctx)
	})
}

func (inv *invocation) park(ctx context.Context) error { return inv.simple(ctx, (*admin.Client).Park) }
func (inv *invocation) lock(ctx context.Context) error { return inv.simple(ctx, (*admin.Client).Lock) }
func (inv *invocation) unlock(ctx context.Context) error {
	return inv.simple(ctx, (*admin.Client).Unlock)
}

func (inv *invocation) adopt(ctx context.Context) error {
	if inv.reason == "" {
		return cli.Usagef("say why with --reason TEXT: it is logged")
	}
	return inv.simple(ctx, func(c *admin.Client, ctx context.Context, s abi.SlotInfo) error {
		if inv.restore {
			return c.PermitRestore(ctx, s, inv.reason)
		}
		return c.Adopt(ctx, s, inv.reason)
	})
}

// simple does what has no answer, and shows the slot as it is then.
func (inv *invocation) simple(ctx context.Context, do func(*admin.Client, context.Context, abi.SlotInfo) error) error {
	return inv.withSlot(ctx, func(ctx context.Context, c *admin.Client, info abi.SlotInfo) error {
		if err := do(c, ctx, info); err != nil {
			return err
		}
		after, err := c.Show(ctx, info.Name)
		if err != nil {
			return err
		}
		return inv.printSlot(after)
	})
}

func (inv *invocation) destroy(ctx context.Context) error {
	if err := inv.confirm(); err != nil {
		return err
	}
	return inv.withSlot(ctx, func(ctx context.Context, c *admin.Client, info abi.SlotInfo) error {
		receipt, err := newFile(inv.out)
		if err != nil {
			return err
		}
		defer receipt.drop()
		st, body, err := c.Destroy(ctx, info)
		if err != nil {
			return err
		}
		if err := receipt.keep(st.Raw); err != nil {
			return fmt.Errorf("the slot is destroyed, but its receipt was not kept: %w", err)
		}
		fmt.Fprintf(inv.con.err, "slot %s is destroyed; its access key has no use any more\n", info.Name)
		return inv.printReceipt(st, body)
	})
}

// confirm asks for the slot's name: a "yes" is typed too easily.
func (inv *invocation) confirm() error {
	if inv.yes {
		return nil
	}
	if !inv.con.askable {
		return cli.Usagef("destroying a slot cannot be undone: confirm with --yes")
	}
	fmt.Fprintf(inv.con.err, "The TPM in slot %s and all its keys will be lost for ever.\nType the name of the slot to confirm: ", inv.args[0])
	answer, _ := bufio.NewReader(inv.con.in).ReadString('\n')
	if strings.TrimSpace(answer) != inv.args[0] {
		return fmt.Errorf("not confirmed, nothing was done")
	}
	return nil
}
