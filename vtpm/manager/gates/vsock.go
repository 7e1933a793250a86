// SPDX-License-Identifier: Apache-2.0

package gates

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"hwvtpm/coproc/abi"
	"hwvtpm/internal/places"
	"hwvtpm/internal/shares"
	"hwvtpm/vtpm/door"
	"hwvtpm/vtpm/door/vsock"
)

// Vsock serves guests that connect by vsock. The machine is the one that a file gives
// for the connection's CID, for which the kernel vouches.
type Vsock struct {
	cfg    Config
	guests string // file
	ln     net.Listener
	cancel context.CancelFunc
	wg     sync.WaitGroup
	taken  *places.Places // by CID
	rate   *shares.Shares // of connections, by CID

	mu   sync.Mutex        // guards what follows
	sent map[string]*meter // by machine
	said string            // of the file
}

// A CID may connect so often in a row, and then once in each period: the file is read
// for each. All CIDs together have as many places as there are CIDs.
const (
	connectBurst = 32
	connectEvery = 100 * time.Millisecond
	allPlaces    = 1 << 30
)

// OpenVsock listens at a port. The file has a line "CID NAME" for each machine, and
// comments behind a #. It is read at each connection. Of cfg it takes Handler, Most
// (of each machine), Slow and Logger.
func OpenVsock(port uint32, guests string, cfg Config) (*Vsock, error) {
	if _, err := readGuests(guests); err != nil {
		return nil, err
	}
	ln, err := vsock.Listen(vsock.Addr{CID: vsock.CIDAny, Port: port})
	if err != nil {
		return nil, err
	}
	return serveVsock(ln, guests, cfg), nil
}

func serveVsock(ln net.Listener, guests string, cfg Config) *Vsock {
	ctx, cancel := context.WithCancel(context.Background())
	v := &Vsock{
		cfg: cfg, guests: guests, ln: ln, cancel: cancel, sent: map[string]*meter{},
		taken: places.New(allPlaces, cfg.Most), rate: shares.New(connectBurst, connectEvery),
	}
	v.wg.Go(func() { v.serve(ctx) })
	return v
}

// Close ends all connections, and waits for what is under way. It is idempotent.
func (v *Vsock) Close() error {
	v.cancel()
	err := v.ln.Close()
	v.wg.Wait()
	return err
}

// acceptRetry is the pause after a failed accept, mostly for want of descriptors.
const acceptRetry = 100 * time.Millisecond

func (v *Vsock) serve(ctx context.Context) {
	for {
		c, err := v.ln.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			if err == nil {
				c.Close()
			}
			return
		case err != nil:
			v.cfg.Logger.Warn("accept", "error", err)
			time.Sleep(acceptRetry)
			continue
		}
		v.wg.Go(func() { v.connection(ctx, c) })
	}
}

func (v *Vsock) connection(ctx context.Context, c net.Conn) {
	defer c.Close()
	at, ok := c.RemoteAddr().(vsock.Addr)
	if !ok {
		return
	}
	cid := strconv.FormatUint(uint64(at.CID), 10)
	leave, ok := v.taken.Enter(cid)
	if !ok {
		return
	}
	defer leave()
	if !v.rate.Take(cid, time.Now()) {
		return
	}
	known, err := readGuests(v.guests)
	if vm := known[at.CID]; err == nil && vm != "" {
		v.cfg.talk(ctx, c, door.Caller{VM: vm, UID: -1}, v.meter(vm))
		return
	}
	v.turnAway(at.CID, err)
}

// turnAway logs why a guest got no answer: for a file that can't be read once, since
// guests can come without end.
func (v *Vsock) turnAway(cid uint32, err error) {
	v.cfg.Logger.Debug("a caller is turned away", "cid", cid)
	if err == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.said != err.Error() {
		v.said = err.Error()
		v.cfg.Logger.Error("nobody knows which machine has which CID", "error", err)
	}
}

// meter is what counts a machine's bytes, for as long as the daemon lives.
func (v *Vsock) meter(vm string) *meter {
	v.mu.Lock()
	defer v.mu.Unlock()
	m := v.sent[vm]
	if m == nil {
		m = &meter{}
		v.sent[vm] = m
	}
	return m
}

// maxGuests bounds the file of guests, in bytes.
const maxGuests = 1 << 20

// readGuests reads which machine has which CID. A file with a mistake gives none: what
// stands behind the mistake might be what matters. One that is too large is not cut: a
// name that is cut might be another machine's.
func readGuests(path string) (map[uint32]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	file := &io.LimitedReader{R: f, N: maxGuests + 1}
	all, used := map[uint32]string{}, map[string]bool{}
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		cid, vm, err := parseGuest(words)
		if err == nil && (all[cid] != "" || used[vm]) {
			err = errors.New("the CID or the machine stands there twice")
		}
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, n, err)
		}
		all[cid], used[vm] = vm, true
	}
	if file.N == 0 {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxGuests)
	}
	return all, lines.Err()
}

func parseGuest(words []string) (cid uint32, vm string, err error) {
	if len(words) != 2 {
		return 0, "", errors.New("want CID and NAME")
	}
	n, err := strconv.ParseUint(words[0], 10, 32)
	if err != nil || uint32(n) <= vsock.CIDHost || uint32(n) == vsock.CIDAny {
		return 0, "", fmt.Errorf("%q is no guest's CID", words[0])
	}
	if !abi.ValidName(words[1]) {
		return 0, "", fmt.Errorf("%.80q is no machine's name", words[1])
	}
	return uint32(n), words[1], nil
}
