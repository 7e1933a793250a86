// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"time"

	"golang.org/x/sys/unix"
)

// recancel is how often a running command is canceled while the end of the
// session waits for it. Once would do, but for a command that is just about to
// begin.
const recancel = 20 * time.Millisecond

// setLocality is SET_LOCALITY.
func (s *session) setLocality(locality uint8) result {
	if locality > maxLocality {
		return resBadLocality
	}
	s.locality.Store(uint32(locality))
	return resOK
}

// resetEstablished is RESET_TPMESTABLISHED: to be asked from the localities of
// a dynamic launch only.
func (s *session) resetEstablished(locality uint8) result {
	if locality != 3 && locality != 4 {
		return resBadLocality
	}
	s.established = false
	return resOK
}

// establishedWord is the answer to GET_TPMESTABLISHED: the bit, in the first byte.
func (s *session) establishedWord() uint32 {
	if s.established {
		return 1 << 24
	}
	return 0
}

// cancel is CANCEL_TPM_CMD.
func (s *session) cancel() result {
	s.server.counters.cancels.Add(1)
	if err := s.slot.Cancel(); err != nil {
		s.log.Warn("cancelling the running command failed", "error", err)
		return resFail
	}
	return resOK
}

// cancelUntil cancels what runs until done is closed.
func (s *session) cancelUntil(done <-chan struct{}) {
	t := time.NewTicker(recancel)
	defer t.Stop()
	for {
		_ = s.slot.Cancel() // or the command ends by itself
		select {
		case <-done:
			return
		case <-t.C:
		}
	}
}

// setBufferSize is SET_BUFFERSIZE. A size that is not possible becomes the
// nearest one that is.
func (s *session) setBufferSize(size uint32) (result, []uint32) {
	if size > 0 {
		if s.running.Load() {
			return resBadOrdinal, nil
		}
		s.bufferSize.Store(min(max(size, minBuffer), maxBuffer))
	}
	return resOK, []uint32{s.bufferSize.Load(), minBuffer, maxBuffer}
}

// setDataFD is SET_DATAFD. There is one data channel at a time; another may
// follow when the peer has closed it.
func (s *session) setDataFD(r *request) result {
	if s.data != nil && !s.data.over() {
		return resIOError
	}
	if r.fd < 0 || !isStreamSocket(r.fd) {
		return resBadParameter
	}
	s.data = s.startData(r.fd)
	r.fd = -1 // the channel owns it now
	return resOK
}

// isStreamSocket keeps files and devices away: they may be endless.
func isStreamSocket(fd int) bool {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_UNIX {
		return false
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && kind == unix.SOCK_STREAM
}

// configFlags are those of GET_CONFIG.
func (s *session) configFlags() uint32 {
	if s.server.mover != nil {
		return configMigrationKey
	}
	return 0
}
