// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"hwvtpm/coproc/abi"
)

const entryHeaderSize = 24

// entry is a deterministic command that was answered after the committed
// checkpoint. A restore runs the entries again, in order, and each must give
// its response again.
//
//	 0            4            8                       16
//	+------------+------------+------------------------+
//	| length     | CRC-32C    | sequence number        |
//	+---+---+----+------------+------------------------+
//	|loc| 0 |cmd | resp length| command ...              16
//	+---+---+----+------------+
//	| ... response, zeros up to a multiple of 8        | 24
//	+--------------------------------------------------+
//
// Little-endian. loc is the locality, one byte; cmd the length of the command,
// two bytes; length counts the whole entry. The CRC covers the checkpoint's serial number and what is behind the CRC, so an
// entry that an earlier checkpoint left is no entry of this one.
type entry struct {
	seq      uint64
	locality uint8
	command  []byte // parsed: aliases the journal
	response []byte // parsed: aliases the journal
}

// entrySize is the size of an entry with these lengths.
func entrySize(cmd, resp int) int { return (entryHeaderSize + cmd + resp + 7) &^ 7 }

// putEntry writes e to the front of b, which has the room. e.command is there
// already, cmd bytes at entryHeaderSize: it was put there before the TPM got
// the buffer it came in. It returns the size.
func putEntry(b []byte, serial uint32, e *entry, cmd int) int {
	le := binary.LittleEndian
	size := entrySize(cmd, len(e.response))
	end := entryHeaderSize + cmd
	end += copy(b[end:], e.response)
	clear(b[end:size])
	le.PutUint32(b[0:], uint32(size))
	le.PutUint64(b[8:], e.seq)
	b[16], b[17] = e.locality, 0
	le.PutUint16(b[18:], uint16(cmd))
	le.PutUint32(b[20:], uint32(len(e.response)))
	le.PutUint32(b[4:], entrySum(b[:size], serial))
	return size
}

func entrySum(b []byte, serial uint32) uint32 {
	var s [4]byte
	binary.LittleEndian.PutUint32(s[:], serial)
	return crc32.Update(crc32.Checksum(s[:], castagnoli), castagnoli, b[8:])
}

// nextEntry takes the first entry off a journal and gives the rest.
func nextEntry(b []byte, serial uint32) (entry, []byte, error) {
	le := binary.LittleEndian
	if len(b) < entryHeaderSize {
		return entry{}, nil, fmt.Errorf("journal ends inside an entry: %w", errCorrupt)
	}
	size := le.Uint32(b)
	cmd, resp := int(le.Uint16(b[18:])), le.Uint32(b[20:])
	if cmd > abi.MaxPayload || resp > abi.MaxPayload ||
		uint64(size) != uint64(entrySize(cmd, int(resp))) || uint64(size) > uint64(len(b)) {
		return entry{}, nil, fmt.Errorf("journal entry of %d bytes: %w", size, errCorrupt)
	}
	body, rest := b[:size], b[size:]
	if entrySum(body, serial) != le.Uint32(b[4:]) || b[16] > abi.MaxLocality || b[17] != 0 {
		return entry{}, nil, fmt.Errorf("journal entry checksum is wrong: %w", errCorrupt)
	}
	end := entryHeaderSize + cmd
	return entry{
		seq:      le.Uint64(b[8:]),
		locality: b[16],
		command:  body[entryHeaderSize:end],
		response: body[end : end+int(resp)],
	}, rest, nil
}

// stage copies a command to the end of the journal, where it counts for
// nothing until appendJournal. It returns false if there is no room for it
// and any response.
func (s *slot) stage(cmd []byte) bool {
	if s.journal+entrySize(len(cmd), abi.MaxPayload) > journalSize {
		return false
	}
	copy(s.vol.journal()[s.journal+entryHeaderSize:], cmd)
	return true
}

// appendJournal completes the staged entry and commits it.
func (s *slot) appendJournal(seq uint64, locality uint8, cmd int, resp []byte) {
	e := entry{seq: seq, locality: locality, response: resp}
	s.journal += putEntry(s.vol.journal()[s.journal:], s.serial, &e, cmd)
	s.vol.commit(commitWord{serial: s.serial, journal: s.journal})
	s.record(seq, resp)
	s.flags = 0
	s.stats.journaled++
}

// replay runs the committed part of the journal.
func (s *slot) replay() error {
	var cmd [abi.MaxPayload]byte
	for rest := s.vol.journal()[:s.journal]; len(rest) > 0; {
		var e entry
		var err error
		if e, rest, err = nextEntry(rest, s.serial); err != nil {
			return err
		}
		if e.seq <= s.seq {
			return fmt.Errorf("journal entry %d after %d: %w", e.seq, s.seq, errCorrupt)
		}
		n, _, err := s.tpm.Process(e.locality, cmd[:copy(cmd[:], e.command)], s.scratch)
		if err != nil {
			return fmt.Errorf("replay: %w", err)
		}
		if !bytes.Equal(s.scratch[:n], e.response) {
			return fmt.Errorf("replay of command %d went another way: %w", e.seq, errCorrupt)
		}
		s.record(e.seq, e.response)
		s.flags = 0
	}
	return nil
}
