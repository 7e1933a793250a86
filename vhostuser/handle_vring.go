// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"fmt"
)

// vringAt checks an index that came from the front-end.
func (s *session) vringAt(index uint32) (*vring, error) {
	if uint64(index) >= uint64(len(s.vrings)) {
		return nil, fmt.Errorf("vring %d of %d: %w", index, len(s.vrings), ErrProtocol)
	}
	return &s.vrings[index], nil
}

// stoppedState parses a vring state for a ring that must not be running.
func (s *session) stoppedState(m *message) (*vring, uint32, error) {
	st, err := parseVringState(m.body)
	if err != nil {
		return nil, 0, err
	}
	v, err := s.vringAt(st.index)
	if err == nil && v.ring != nil {
		err = errRunning
	}
	return v, st.num, err
}

func (s *session) setVringNum(m *message) error {
	v, num, err := s.stoppedState(m)
	if err != nil {
		return err
	}
	v.size = num
	return nil
}

func (s *session) setVringBase(m *message) error {
	v, base, err := s.stoppedState(m)
	if err != nil {
		return err
	}
	v.base = base
	return nil
}

// setVringAddr stores the ring's addresses. On a running ring only what
// concerns logging may differ: live migration switches it on and off so.
func (s *session) setVringAddr(m *message) error {
	a, err := parseVringAddr(m.body)
	if err != nil {
		return err
	}
	v, err := s.vringAt(a.index)
	if err != nil {
		return err
	}
	if a.flags&^vringFlagLog != 0 {
		return fmt.Errorf("vring flags %#x: %w", a.flags, ErrProtocol)
	}
	if v.ring != nil && (a.desc != v.addr.desc || a.used != v.addr.used || a.avail != v.addr.avail) {
		return errRunning
	}
	v.addr = a
	if v.ring != nil {
		log, used := s.logFor(v)
		v.ring.setLog(log, used, a.log)
	}
	return nil
}

// getVringBase stops the ring and says where it stopped.
func (s *session) getVringBase(m *message) (reply, error) {
	st, err := parseVringState(m.body)
	if err != nil {
		return reply{}, err
	}
	v, err := s.vringAt(st.index)
	if err != nil {
		return reply{}, err
	}
	s.stop(s.vrings[st.index : st.index+1])
	return reply{payload: vringState{st.index, v.base}.append(nil)}, nil
}

func (s *session) setVringEnable(m *message) error {
	st, err := parseVringState(m.body)
	if err != nil {
		return err
	}
	v, err := s.vringAt(st.index)
	if err != nil {
		return err
	}
	if st.num > 1 {
		return fmt.Errorf("enable value %d: %w", st.num, ErrProtocol)
	}
	v.enabled = st.num == 1
	return s.resume(v)
}

// vringFD reads a message that gives a ring a descriptor, or none if the
// invalid-descriptor flag is set. The caller owns the result.
func (s *session) vringFD(m *message) (*vring, *fd, error) {
	u, err := parseU64(m.body)
	if err != nil {
		return nil, nil, err
	}
	if u&^(vringIndexMask|vringNoFD) != 0 {
		return nil, nil, fmt.Errorf("reserved bits in %#x: %w", u, ErrProtocol)
	}
	v, err := s.vringAt(uint32(u & vringIndexMask))
	if err != nil {
		return nil, nil, err
	}
	if (u&vringNoFD != 0) != (len(m.fds) == 0) {
		return nil, nil, fmt.Errorf("%w: %w", errNoFDFlag, ErrProtocol)
	}
	f := m.takeFD()
	if f == nil {
		return v, nil, nil
	}
	if err := f.asEvent(); err != nil {
		f.close()
		return nil, nil, err
	}
	return v, f, nil
}

func (s *session) setVringKick(m *message) error {
	v, f, err := s.vringFD(m)
	switch {
	case err != nil:
		return err
	case f == nil:
		return errPolling
	}
	old := v.kick
	if v.kick = f; v.ring != nil {
		v.ring.setKick(f)
	}
	old.close()
	return s.resume(v)
}

func (s *session) setVringCall(m *message) error {
	v, f, err := s.vringFD(m)
	if err != nil {
		return err
	}
	old := v.call
	if v.call = f; v.ring != nil {
		v.ring.setCall(f)
	}
	old.close()
	return nil
}

func (s *session) setVringErr(m *message) error {
	v, f, err := s.vringFD(m)
	if err != nil {
		return err
	}
	old := v.errs
	if v.errs = f; v.ring != nil {
		v.ring.setErr(f)
	}
	old.close()
	return nil
}
