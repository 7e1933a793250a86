// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/internal/memfault"
	"hwvtpm/virtqueue"
)

// session is one connection. It lives as long as its socket, so there is
// nothing to undo when the front-end comes back: that is a new session. All
// fields belong to the session goroutine.
type session struct {
	ctx  context.Context
	cfg  *Config
	dev  Device
	log  hclog.Logger
	conn *conn

	owned    bool   // SET_OWNER was seen
	features uint64 // accepted virtio features
	protocol uint64 // accepted protocol features
	status   uint64 // device status as last set, VIRTIO 1.3 2.1

	mem      memTable
	logMap   *sharedMap
	dirty    *virtqueue.DirtyLog
	inflight inflightArea
	transfer *transfer
	channel  *channel
	vrings   []vring

	complaints int
	breaks     atomic.Int32 // rings broken; counted by the rings
}

// maxComplaints bounds the log lines that a front-end can cause by requests
// that fail and are answered so, and those that a guest can cause by breaking
// its rings.
const maxComplaints = 16

func newSession(ctx context.Context, cfg *Config, c *conn, log hclog.Logger, ch *channel) *session {
	s := &session{ctx: ctx, cfg: cfg, dev: cfg.Device, log: log, conn: c, channel: ch}
	s.vrings = make([]vring, cfg.Device.QueueCount())
	for i := range s.vrings {
		s.vrings[i].index = i
	}
	return s
}

// serve answers messages until the front-end hangs up, which is nil, or
// something breaks. All rings have stopped and all descriptors and mappings
// are released when it returns; only the socket is the caller's.
func (s *session) serve() error {
	defer memfault.Arm()()
	defer s.teardown()
	var m message
	for {
		if err := s.conn.receive(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return &Error{Queue: -1, Err: err}
		}
		err := s.answer(&m)
		m.closeFDs()
		if err != nil {
			return &Error{Request: m.request, Queue: -1, Err: err}
		}
	}
}

func (s *session) teardown() {
	s.release()
	s.channel.set(nil)
}

// release stops the rings and gives back what the front-end has shared since
// SET_OWNER.
func (s *session) release() {
	s.transfer.abort()
	s.stop(s.vrings)
	for i := range s.vrings {
		s.vrings[i].close()
		s.vrings[i] = vring{index: i}
	}
	s.inflight.unmap()
	s.logMap.unmap()
	unmapSlots(s.mem.slots)
	s.inflight, s.logMap, s.dirty, s.mem = inflightArea{}, nil, nil, memTable{}
	s.features, s.status = 0, 0
}

// setOwner begins a device's use of the connection. QEMU keeps the connection
// when the device is unplugged and says nothing at all then; a second SET_OWNER
// is a device that was plugged in its place, and knows nothing of what the
// first one shared. Protocol features and back-end channel stay: QEMU settles
// them before SET_OWNER.
func (s *session) setOwner() {
	if s.owned {
		s.release()
	}
	s.owned = true
}

// reply is what a handler answers: nothing, or the payload of a message's own
// reply. fd is closed after it was sent.
type reply struct {
	payload []byte
	fd      *fd
}

func replyU64(v uint64) reply { return reply{payload: appendU64(nil, v)} }

// answer serves one message. A returned error ends the session.
//
// What happens when a message fails, in this order: its own reply says so, if
// that has a way to; else REPLY_ACK does, if the front-end asked for it; else
// the session ends, since the front-end would go on with a device it believes
// set up ("Communication" lets a back-end close the connection). A ring that
// does not start is the exception: it is reported by its error descriptor.
func (s *session) answer(m *message) error {
	var out reply
	err := check(m, s.protocol)
	if err == nil {
		out, err = s.dispatch(m)
	}
	own := guards[m.request].ownReply
	ack := !own && m.needReply() && s.protocol&(1<<ProtocolReplyAck) != 0
	if err != nil {
		s.complain(m, err)
		if out, own = failureReply(m.request); !own && !ack {
			if _, ok := errors.AsType[*startError](err); ok {
				return nil
			}
			return err
		}
	}
	switch {
	case own:
		return s.send(m.request, out)
	case ack && err != nil:
		return s.send(m.request, replyU64(1))
	case ack:
		return s.send(m.request, replyU64(0))
	}
	return nil
}

func (s *session) send(r Request, out reply) error {
	defer out.fd.close()
	return s.conn.reply(r, out.payload, out.fd)
}

// failureReply is the own reply of a message that says it failed; false if
// the message has none.
func failureReply(r Request) (reply, bool) {
	switch r {
	case GetConfig: // "zero length of payload to indicate an error"
		return reply{}, true
	case SetLogBase, CheckDeviceState:
		return replyU64(1), true
	case SetDeviceStateFD:
		return replyU64(stateNoFD | 1), true
	case GetInflightFD:
		return reply{payload: inflightDesc{}.append(nil)}, true
	}
	return reply{}, false
}

// complain logs a failed request. The count is bounded per session, because
// the front-end decides how often this happens.
func (s *session) complain(m *message, err error) {
	s.complaints++
	switch {
	case s.complaints < maxComplaints:
		s.log.Warn("request failed", "request", m.request, "error", err)
	case s.complaints == maxComplaints:
		s.log.Warn("request failed; further ones of this session are not logged", "request", m.request, "error", err)
	}
}
