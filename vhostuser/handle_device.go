// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"errors"
	"fmt"
)

var errNotOffered = errors.New("feature bits that were not offered")

// setFeatures accepts virtio features. While a ring runs only VHOST_F_LOG_ALL
// may change, which is how live migration switches logging on ("Migration").
func (s *session) setFeatures(m *message) error {
	v, err := parseU64(m.body)
	if err != nil {
		return err
	}
	if extra := v &^ s.cfg.offeredFeatures(); extra != 0 {
		return fmt.Errorf("%w: %#x", errNotOffered, extra)
	}
	if !s.suspended() && (v^s.features)&^(1<<FeatureLogAll) != 0 {
		return errRunning
	}
	s.features = v
	s.updateLogs()
	if v&(1<<FeatureProtocolFeatures) != 0 {
		return nil
	}
	// Without protocol features there is no SET_VRING_ENABLE ("Ring states").
	for i := range s.vrings {
		s.vrings[i].enabled = true
		if err := s.resume(&s.vrings[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) setProtocolFeatures(m *message) error {
	v, err := parseU64(m.body)
	if err != nil {
		return err
	}
	if extra := v &^ s.cfg.offeredProtocol(); extra != 0 {
		return fmt.Errorf("%w: %#x", errNotOffered, extra)
	}
	s.protocol = v
	return nil
}

// getConfig reads config space. The reply has the offset, size and flags of
// the request, so that its size matches, as the spec demands.
func (s *session) getConfig(m *message) (reply, error) {
	c, err := parseConfigAccess(m.body)
	if err != nil {
		return reply{}, err
	}
	c.data = make([]byte, c.size)
	s.dev.ReadConfig(c.data, c.offset)
	return reply{payload: c.append(nil)}, nil
}

// setConfig is a driver's write to config space. A write that is flagged as
// migrated state is accepted and has no effect: a device's config space is
// derived from state that migrates by other means (DEVICE_STATE), and writing
// it may be a command to the device.
func (s *session) setConfig(m *message) error {
	c, err := parseConfigAccess(m.body)
	if err != nil {
		return err
	}
	switch c.flags {
	case 0:
		return s.dev.WriteConfig(c.offset, c.data)
	case configFlagMigration:
		return nil
	}
	return fmt.Errorf("config flags %#x: %w", c.flags, ErrProtocol)
}

// resetDevice disables and stops all rings and resets the device. Features,
// memory and the rest of the session stay, as "RESET_DEVICE" says.
func (s *session) resetDevice() error {
	s.stopAll()
	return s.dev.Reset()
}

// setStatus stores the device status. Zero is a virtio reset (VIRTIO 1.3
// 2.1.2): no ring may run after it. It does not reset what is behind the
// device; RESET_DEVICE does.
func (s *session) setStatus(m *message) error {
	v, err := parseU64(m.body)
	if err != nil {
		return err
	}
	if v > 0xff {
		return fmt.Errorf("device status %#x: %w", v, ErrProtocol)
	}
	if s.status = v; v == 0 {
		s.stopAll()
	}
	return nil
}

func (s *session) stopAll() {
	s.stop(s.vrings)
	for i := range s.vrings {
		s.vrings[i].enabled = s.features&(1<<FeatureProtocolFeatures) == 0
	}
}

func (s *session) setBackendReqFD(m *message) error {
	f := m.takeFD()
	if err := f.asSocket(); err != nil {
		f.close()
		return err
	}
	s.channel.set(f)
	return nil
}
