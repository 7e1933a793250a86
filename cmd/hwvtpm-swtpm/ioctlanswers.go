// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
)

// The answers are printed in swtpm_ioctl's words, which scripts look for.

func getCapability(con *console, c *control) error {
	b, err := c.ask(cmdGetCapability, nil, 4)
	if err == nil {
		fmt.Fprintf(con.out, "ptm capability is 0x%x\n", order.Uint32(b))
	}
	return err
}

func getEstablished(con *console, c *control) error {
	b, err := c.ask(cmdGetTPMEstablished, nil, 4)
	if err == nil {
		fmt.Fprintf(con.out, "tpmEstablished is %d\n", b[0])
	}
	return err
}

func getConfig(con *console, c *control) error {
	b, err := c.ask(cmdGetConfig, nil, 4)
	if err == nil {
		fmt.Fprintf(con.out, "ptm configuration flags: 0x%x\n", order.Uint32(b))
	}
	return err
}

func resetEstablished(_ *console, c *control, locality uint64) error {
	_, err := c.ask(cmdResetTPMEstablished, []byte{byte(locality), 0, 0, 0}, 0)
	return err
}

func setLocality(_ *console, c *control, locality uint64) error {
	_, err := c.ask(cmdSetLocality, []byte{byte(locality), 0, 0, 0}, 0)
	return err
}

func setBufferSize(con *console, c *control, size uint64) error {
	b, err := c.ask(cmdSetBufferSize, order.AppendUint32(nil, uint32(size)), 12)
	if err == nil {
		fmt.Fprintf(con.out, "TPM buffersize: %d\nminimum size  : %d\nmaximum size  : %d\n",
			order.Uint32(b), order.Uint32(b[4:]), order.Uint32(b[8:]))
	}
	return err
}

// maxInfo bounds what a TPM says of itself, in bytes.
const maxInfo = 64 << 10

func getInfo(con *console, c *control, flags uint64) error {
	body := order.AppendUint64(nil, flags)
	body = append(body, make([]byte, 8)...) // from the start, and padding
	head, err := c.ask(cmdGetInfo, body, 8)
	if err != nil {
		return err
	}
	size := order.Uint32(head[4:])
	if size > maxInfo {
		return fmt.Errorf("information of %d bytes", size)
	}
	text, err := c.read(cmdGetInfo, int(size))
	if err == nil {
		fmt.Fprintf(con.out, "%s\n", bytes.TrimRight(text, "\x00\n"))
	}
	return err
}
