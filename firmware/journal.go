// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
)

const entryHeaderSize = 16

// entry is a deterministic command that was answered after the committed
// checkpoint. A restore runs the entries again, in order, and each must give
// its response again. It is sealed for its offset in the journal (see
// sealed.Journal). The plaintext is:
//
//	 0                         8   9   10       12          16
//	+-------------------------+---+---+--------+-----------+
//	| sequence number         |loc| 0 |cmd len | resp len  |
//	+-------------------------+---+---+--------+-----------+
//	| command ...                                          | 16
//	+------------------------------------------------------+
//	| response ...                                         |
//	+------------------------------------------------------+
//
// Little-endian. loc is the locality. In the journal an entry has its sealed
// length before it, and zeros up to a multiple of 8 behind it:
//
//	+------------+-------------------------+-------+
//	| length (4) | sealed entry ...        | zeros |
//	+------------+-------------------------+-------+
type entry struct {
	seq      uint64
	locality uint8
	command  []byte // parsed: aliases the plaintext
	response []byte // parsed: aliases the plaintext
}

// frameSize is the room in the journal of an entry with these lengths.
func frameSize(cmd, resp int) int {
	return (4 + sealed.EntryOverhead + entryHeaderSize + cmd + resp + 7) &^ 7
}

// putEntry completes an entry in b, which has the room, and returns its size.
// e.command is there already, cmd bytes at entryHeaderSize: it was put there
// before the TPM got the buffer it came in.
func putEntry(b []byte, e *entry, cmd int) int {
	le := binary.LittleEndian
	le.PutUint64(b[0:], e.seq)
	b[8], b[9] = e.locality, 0
	le.PutUint16(b[10:], uint16(cmd))
	le.PutUint32(b[12:], uint32(len(e.response)))
	end := entryHeaderSize + cmd
	return end + copy(b[end:], e.response)
}

// parseEntry reads the plaintext of an entry.
func parseEntry(b []byte) (entry, error) {
	le := binary.LittleEndian
	if len(b) < entryHeaderSize {
		return entry{}, fmt.Errorf("journal entry of %d bytes: %w", len(b), errCorrupt)
	}
	cmd, resp := int(le.Uint16(b[10:])), le.Uint32(b[12:])
	if cmd > abi.MaxPayload || resp > abi.MaxPayload || b[8] > abi.MaxLocality || b[9] != 0 ||
		len(b) != entryHeaderSize+cmd+int(resp) {
		return entry{}, fmt.Errorf("journal entry of %d bytes: %w", len(b), errCorrupt)
	}
	end := entryHeaderSize + cmd
	return entry{seq: le.Uint64(b), locality: b[8], command: b[entryHeaderSize:end], response: b[end:]}, nil
}

// appendFrame appends the frame of an entry, for the offset at.
func appendFrame(dst []byte, j *sealed.Journal, at int, plain []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(sealed.EntryOverhead+len(plain)))
	dst = j.Seal(dst, uint64(at), plain)
	for len(dst)%8 != 0 {
		dst = append(dst, 0)
	}
	return dst
}

// openFrame opens the entry at the offset at of a journal, which ends where b
// does, into plain, and gives the offset behind it. The caller clears plain.
func openFrame(plain []byte, j *sealed.Journal, b []byte, at int) (entry, int, error) {
	rest := b[at:]
	if len(rest) < 4 {
		return entry{}, 0, fmt.Errorf("journal ends inside an entry: %w", errCorrupt)
	}
	n := uint64(binary.LittleEndian.Uint32(rest))
	size := (4 + n + 7) &^ 7
	if n > maxEntry || size > uint64(len(rest)) {
		return entry{}, 0, fmt.Errorf("journal entry of %d bytes: %w", n, errCorrupt)
	}
	for _, pad := range rest[4+n : size] {
		if pad != 0 {
			return entry{}, 0, fmt.Errorf("journal entry is not padded with zeros: %w", errCorrupt)
		}
	}
	plain, err := j.Open(plain[:0], uint64(at), rest[4:4+n])
	if err != nil {
		return entry{}, 0, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	e, err := parseEntry(plain)
	return e, at + int(size), err
}

// maxEntry is the size of the largest sealed entry.
const maxEntry = sealed.EntryOverhead + entryHeaderSize + 2*abi.MaxPayload

// stage copies a command to the entry in the making, where it counts for
// nothing until appendJournal. It returns false if there is no room for it
// and any response.
func (s *slot) stage(cmd []byte) bool {
	if s.journal+frameSize(len(cmd), abi.MaxPayload) > journalSize {
		return false
	}
	if s.entries == nil {
		var err error
		if s.entries, err = s.seals.Journal(s.blob); err != nil {
			return false
		}
	}
	copy(s.plain[entryHeaderSize:], cmd)
	return true
}

// appendJournal seals the staged entry and commits it. It is sealed here and
// then copied, since somebody else may write the file.
func (s *slot) appendJournal(seq uint64, locality uint8, cmd int, resp []byte) {
	e := entry{seq: seq, locality: locality, response: resp}
	n := putEntry(s.plain, &e, cmd)
	s.frame = appendFrame(s.frame[:0], s.entries, s.journal, s.plain[:n])
	clear(s.plain[:n])
	copy(s.vol.journal()[s.journal:], s.frame)
	s.journal += len(s.frame)
	s.vol.commit(commitWord{serial: s.serial, journal: s.journal})
	s.record(seq, resp)
	s.flags = 0
	s.stats.Journaled++
}

// replay runs the committed part of the journal.
func (s *slot) replay(size int) error {
	if size == 0 {
		return nil
	}
	var err error
	if s.entries, err = s.seals.Journal(s.blob); err != nil {
		return err
	}
	journal := bytes.Clone(s.vol.journal()[:size])
	for at := 0; at < size; {
		if at, err = s.replayEntry(journal, at); err != nil {
			return err
		}
	}
	s.journal = size
	return nil
}

// replayEntry runs the entry at an offset, and gives the offset behind it.
func (s *slot) replayEntry(journal []byte, at int) (int, error) {
	e, next, err := openFrame(s.plain, s.entries, journal, at)
	if err != nil {
		return 0, err
	}
	defer clear(s.plain[:entryHeaderSize+len(e.command)+len(e.response)])
	if e.seq <= s.seq {
		return 0, fmt.Errorf("journal entry %d after %d: %w", e.seq, s.seq, errCorrupt)
	}
	n, _, err := s.tpm.Process(e.locality, e.command, s.scratch)
	if err != nil {
		return 0, fmt.Errorf("replay: %w", err)
	}
	if !bytes.Equal(s.scratch[:n], e.response) {
		return 0, fmt.Errorf("replay of command %d went another way: %w", e.seq, errCorrupt)
	}
	s.record(e.seq, e.response)
	s.flags = 0
	return next, nil
}
