// SPDX-License-Identifier: Apache-2.0

package doorhttp

import (
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"hwvtpm/internal/places"
	"hwvtpm/internal/shares"
)

// So many connections of one address are open at a time. It can have so many in a row,
// and then one in each period: each costs a signature.
const (
	mostConns = 32
	connBurst = 64
	connEvery = 100 * time.Millisecond
	noBound   = 1 << 30 // of all together: the server around it has one
)

// Listener bounds what one address can have, so that there is room for others.
// Connections beyond that are reset. Its methods may be called from any goroutine.
type Listener struct {
	net.Listener
	open    *places.Places
	rate    *shares.Shares
	refused atomic.Uint64
}

// Bound takes over a listener.
func Bound(l net.Listener) *Listener {
	return &Listener{Listener: l, open: places.New(noBound, mostConns), rate: shares.New(connBurst, connEvery)}
}

// Refused is how many connections were reset.
func (l *Listener) Refused() uint64 { return l.refused.Load() }

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		who := network(c.RemoteAddr().String())
		if leave, ok := l.open.Enter(who); ok {
			if l.rate.Take(who, time.Now()) {
				return &conn{c, leave}, nil
			}
			leave()
		}
		l.refused.Add(1)
		reset(c)
	}
}

// reset closes a connection and keeps nothing of it in the kernel.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}

// conn is a connection that has a place.
type conn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// network is whom an address counts for: itself, or with IPv6 all 2^64 that a machine can
// give itself.
func network(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote // of another kind of network
	}
	ip := at.Addr().Unmap().WithZone("")
	if ip.Is6() {
		return netip.PrefixFrom(ip, 64).Masked().String()
	}
	return ip.String()
}
