// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"hwvtpm/control/client"
	"hwvtpm/guest/attester"
	"hwvtpm/vtpm/door"
	"hwvtpm/vtpm/door/doorhttp"
	"hwvtpm/vtpm/door/vsock"
)

// way is an open way to the host's door.
type way interface {
	attester.Door
	io.Closer
}

// opener opens a way.
type opener func(ctx context.Context) (way, error)

// parseVia reads an address of --via, and does not open it.
func parseVia(via, ca string) (opener, error) {
	kind, at, _ := strings.Cut(via, ":")
	if ca != "" && kind != "https" {
		return nil, errors.New("--ca is for https: only")
	}
	switch {
	case kind == "serial" && at != "":
		return func(context.Context) (way, error) { return channel(openPort(at)) }, nil
	case kind == "unix" && at != "":
		return func(ctx context.Context) (way, error) { return channel((&net.Dialer{}).DialContext(ctx, "unix", at)) }, nil
	case kind == "vsock":
		addr, err := parseVsock(at)
		return func(ctx context.Context) (way, error) { return channel(vsock.Dial(ctx, addr)) }, err
	case kind == "https":
		if ca == "" {
			return nil, errors.New("https: needs --ca, the authority of the host's certificate")
		}
		if _, err := doorhttp.NewClient(via, &tls.Config{}); err != nil {
			return nil, err
		}
		return func(context.Context) (way, error) {
			roots, err := client.ReadRoots(ca)
			if err != nil {
				return nil, err
			}
			return doorhttp.NewClient(via, &tls.Config{RootCAs: roots})
		}, nil
	}
	return nil, fmt.Errorf("%q is not serial:PATH, vsock:CID:PORT, unix:PATH or https://HOST:PORT", via)
}

// channel makes a client of what was opened, if it was.
func channel[C io.ReadWriteCloser](c C, err error) (way, error) {
	if err != nil {
		return nil, err
	}
	return door.NewClient(c), nil
}

func parseVsock(s string) (vsock.Addr, error) {
	cid, port, _ := strings.Cut(s, ":")
	c, err := strconv.ParseUint(cid, 10, 32)
	if err != nil {
		return vsock.Addr{}, fmt.Errorf("%q is no CID of vsock", cid)
	}
	p, err := strconv.ParseUint(port, 10, 32)
	if err != nil {
		return vsock.Addr{}, fmt.Errorf("%q is no port of vsock", port)
	}
	return vsock.Addr{CID: uint32(c), Port: uint32(p)}, nil
}

// openWay opens the way of the command line; without one it gives nil.
func (inv *invocation) openWay(ctx context.Context) (way, error) {
	if inv.via == "" {
		return nil, nil
	}
	open, err := parseVia(inv.via, inv.ca)
	if err != nil {
		return nil, err
	}
	w, err := open(ctx)
	if err != nil {
		return nil, fmt.Errorf("the way to the host: %w", err)
	}
	var hello door.Hello
	if err := w.Call(ctx, door.OpHello, nil, &hello); err != nil {
		w.Close()
		return nil, fmt.Errorf("the way to the host: %w", err)
	}
	if hello.Version != door.Version {
		w.Close()
		return nil, fmt.Errorf("the host's door is of version %d, not %d", hello.Version, door.Version)
	}
	return w, nil
}
