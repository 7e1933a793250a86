// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"bytes"
	"context"
	"crypto"
	_ "crypto/sha1" // a PCR bank
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"testing"

	"hwvtpm/coproc"
)

// banks are the PCR banks of a new TPM, by TPM_ALG_ID.
var banks = []struct {
	alg  byte
	hash crypto.Hash
}{{0x04, crypto.SHA1}, {0x0b, crypto.SHA256}, {0x0c, crypto.SHA384}, {0x0d, crypto.SHA512}}

// pcr reads a PCR in each bank. It was filled with a byte, had another one as the last,
// and was extended by each of data.
func pcr(n int, fill, last byte, data ...string) step {
	var want []byte
	for _, b := range banks {
		value := bytes.Repeat([]byte{fill}, b.hash.Size())
		value[len(value)-1] = last
		for _, d := range data {
			event, extend := b.hash.New(), b.hash.New()
			event.Write([]byte(d))
			extend.Write(event.Sum(value))
			value = extend.Sum(nil)
		}
		want = append(want, value...)
	}
	return step{what: fmt.Sprintf("PCR %d", n), want: hex.EncodeToString(want), do: func(p *peer) (got []byte) {
		for _, b := range banks {
			sel := []byte{0, 0, 0}
			sel[n/8] = 1 << (n % 8)
			resp := p.execute(tpmCommand(0x17e, append([]byte{0, 0, 0, 1, 0, b.alg, 3}, sel...)...))
			got = append(got, resp[max(len(resp)-b.hash.Size(), 0):]...)
		}
		return got
	}}
}

// zeroPCR and onesPCR are PCRs that were reset, and that wait for a dynamic launch.
func zeroPCR(n int) step { return pcr(n, 0, 0) }
func onesPCR(n int) step { return pcr(n, 0xff, 0xff) }

// launched is PCR 17 after a dynamic launch, hcrtm PCR 0 after an H-CRTM.
func launched(data string) step { return pcr(17, 0, 0, data) }
func hcrtm(data string) step    { return pcr(0, 0, 4, data) }

func hashStart() step           { return ctl("HASH_START", ok, cmdHashStart) }
func hashEnd() step             { return ctl("HASH_END", ok, cmdHashEnd) }
func hashData(data string) step { return raw("HASH_DATA", ok, hashRequest(data)) }

func hashRequest(data string) []byte { return append(words(cmdHashData, uint32(len(data))), data...) }

func established(bit string) step {
	return ctl("GET_TPMESTABLISHED", ok+bit+"000000", cmdGetTPMEstablished)
}

// on is how a conversation about hash sequences begins, and started how it goes on.
func on(steps ...step) []step { return append([]step{open(ok), ctl("INIT", ok, cmdInit, 0)}, steps...) }

func started(steps ...step) []step { return append(on(tpm("Startup", tpmOK, startup)), steps...) }

// interrupted is a sequence with something in the middle that ends it, or does not.
func interrupted(ends bool, by ...step) []step {
	steps := append(started(hashStart(), hashData("data")), by...)
	if ends {
		return append(steps, hashData("more"), hashEnd(), onesPCR(17), onesPCR(18), established("01"))
	}
	return append(steps, hashData("more"), hashEnd(), launched("datamore"))
}

// hashConversations belong to the suite.
var hashConversations = map[string][]step{
	"a dynamic launch": started(established("00"), onesPCR(17), onesPCR(22),
		hashStart(), established("01"), hashData("data"), hashEnd(), established("01"),
		zeroPCR(0), zeroPCR(16), launched("data"), zeroPCR(18), zeroPCR(22), zeroPCR(23),
		hashStart(), hashData("an"), hashData("other"), hashEnd(), launched("another")),
	"an H-CRTM": on(hashStart(), established("01"), hashData("data"), hashEnd(), tpm("Startup", tpmOK, startup),
		hcrtm("data"), zeroPCR(1), onesPCR(17), established("01"),
		hashStart(), hashData("later"), hashEnd(), launched("later"), hcrtm("data")),
	"two H-CRTMs": on(hashStart(), hashData("one"), hashEnd(), hashStart(), hashData("two"), hashEnd(),
		tpm("Startup", tpmOK, startup), hcrtm("two")),
	"an H-CRTM and a reset": on(hashStart(), hashData("data"), hashEnd(), ctl("INIT", ok, cmdInit, 0), tpm("Startup", tpmOK, startup),
		zeroPCR(0), onesPCR(17)),
	"an H-CRTM without data": on(hashStart(), hashEnd(), tpm("Startup", tpmOK, startup), hcrtm("")),
	"an H-CRTM that Startup ends": on(hashStart(), tpm("Startup", tpmOK, startup), hashData("data"), hashEnd(),
		zeroPCR(0), onesPCR(17)),
	"an H-CRTM that a command ends": on(hashStart(), hashData("data"), tpm("GetRandom", "80010000000a00000100", getRandom),
		hashEnd(), tpm("Startup", tpmOK, startup), zeroPCR(0)),
	"HASH_DATA without HASH_START": started(hashData("data"), hashEnd(), onesPCR(17), established("00")),
	"HASH_END without HASH_START":  started(hashEnd(), onesPCR(17), established("00")),
	"HASH_END twice":               started(hashStart(), hashData("data"), hashEnd(), hashEnd(), launched("data")),
	"HASH_START twice":             started(hashStart(), hashData("old"), hashStart(), hashData("data"), hashEnd(), launched("data")),
	"a launch without data":        started(hashStart(), hashEnd(), launched(""), zeroPCR(18)),
	"a launch with empty data":     started(hashStart(), hashData(""), hashEnd(), launched("")),
	"4096 bytes":                   started(hashStart(), hashData(long(4096)), hashEnd(), launched(long(4096))),
	"4097 bytes":                   started(hashStart(), hashData(long(4097)), hashEnd(), launched(long(4097))),
	"40000 bytes":                  started(hashStart(), hashData(long(40000)), hashData("x"), hashEnd(), launched(long(40000)+"x")),

	"a command in between":            interrupted(true, tpm("SelfTest", tpmOK, selfTest)),
	"an unknown command in between":   interrupted(true, tpm("command", "80010000000a00000143", tpmCommand(0x7ff))),
	"a wrong size in between":         interrupted(true, tpm("command", tooLong, append(bytes.Clone(getRandom), 0))),
	"SET_LOCALITY in between":         interrupted(false, ctl("SET_LOCALITY", ok, cmdSetLocality, 3<<24)),
	"CANCEL_TPM_CMD in between":       interrupted(false, ctl("CANCEL_TPM_CMD", ok, cmdCancelTPMCmd)),
	"GET_INFO in between":             interrupted(false, raw("GET_INFO", "", append(words(cmdGetInfo), make([]byte, 16)...))),
	"what TPM it is in between":       interrupted(false, ctl("GET_INFO", "", cmdGetInfo, 0, infoAttributes, 0, 0)),
	"questions in between":            interrupted(false, ctl("GET_CONFIG", "", cmdGetConfig), ctl("SET_BUFFERSIZE", "", cmdSetBufferSize, 0)),
	"RESET_TPMESTABLISHED in between": interrupted(false, ctl("RESET_TPMESTABLISHED", ok, cmdResetTPMEstablished, 3<<24), established("00")),
	"bodies in between":               interrupted(false, ctl("HASH_START", badParameter, cmdHashStart, 0), ctl("HASH_END", badParameter, cmdHashEnd, 0)),

	"STOP in between": started(hashStart(), hashData("data"), ctl("STOP", ok, cmdStop),
		ctl("HASH_START", badOrdinal, cmdHashStart), raw("HASH_DATA", badOrdinal, hashRequest("x")), ctl("HASH_END", badOrdinal, cmdHashEnd),
		ctl("INIT", ok, cmdInit, 0), hashEnd(), tpm("Startup", tpmOK, startup), zeroPCR(0), onesPCR(17), established("01")),
	"INIT in between": started(hashStart(), hashData("data"), ctl("INIT", ok, cmdInit, 0), established("01"),
		hashEnd(), tpm("Startup", tpmOK, startup), zeroPCR(0), onesPCR(17)),
	"the established bit": started(hashStart(), hashEnd(),
		ctl("RESET_TPMESTABLISHED from 0", badLocality, cmdResetTPMEstablished, 0),
		ctl("RESET_TPMESTABLISHED from 2", badLocality, cmdResetTPMEstablished, 2<<24), established("01"),
		ctl("STOP", ok, cmdStop), ctl("INIT", ok, cmdInit, 0), established("01"),
		ctl("RESET_TPMESTABLISHED from 3", ok, cmdResetTPMEstablished, 3<<24), established("00"),
		hashStart(), established("01"),
		ctl("RESET_TPMESTABLISHED from 4", ok, cmdResetTPMEstablished, 4<<24), established("00"), hashEnd(), established("00")),
	"a launch after TPM2_Shutdown": started(tpm("Shutdown", tpmOK, shutdownState), hashStart(), hashData("data"), hashEnd(),
		ctl("STOP", ok, cmdStop), ctl("INIT", ok, cmdInit, 0), tpm("Startup(STATE)", tpmOK, startupState), onesPCR(17), zeroPCR(0)),
	"an H-CRTM that the machine slept without": started(tpm("Shutdown", tpmOK, shutdownState),
		ctl("INIT", ok, cmdInit, 0), hashStart(), hashData("data"), hashEnd(), tpm("Startup(STATE)", "80010000000a000001c4", startupState)),
	"HASH_DATA without a length": on(hashStart(), ctl("HASH_DATA", hungUp, cmdHashData)),
	"HASH_DATA that is cut off":  on(hashStart(), ctl("HASH_DATA", hungUp, cmdHashData, 8, 0)),
}

var startupState = tpmCommand(0x144, 0, 1)

// long is data that no request has room for.
func long(n int) string { return string(bytes.Repeat([]byte{'d'}, n)) }

// What goes beyond swtpm: a limit, and a size that is not the data's.
func TestHashLimits(t *testing.T) {
	p := dialPeer(t, startOurs(t))
	all := step{what: "as much as can be", want: ok, do: func(p *peer) []byte {
		if _, err := p.control.Write(hashRequest(long(coproc.MaxHash))); err != nil {
			p.Fatal(err)
		}
		return p.answer()
	}}
	talk(p, ours, started(
		hashStart(), all, hashEnd(), launched(long(coproc.MaxHash)),
		hashStart(), all, hashData(""), raw("one more", "00000011", hashRequest("x")),
		ctl("after that", "00000009", cmdHashData, 4, 0), ctl("HASH_END", "00000009", cmdHashEnd), hashEnd(), launched(long(coproc.MaxHash)),
		hashStart(), hashData("new"), hashEnd(), launched("new"),
		hashStart(), raw("more than it says", badParameter, append(hashRequest("x"), 'y')), hashData("z"), hashEnd(), launched("z"),
		ctl("a size that is too large", "00000011", cmdHashData, coproc.MaxHash+1),
		step{what: "after that", want: hungUp, do: func(p *peer) []byte { return p.answer() }},
	))
}

// A state that leaves in the middle of a sequence does not have it, and the peer is told.
func TestHashAndStates(t *testing.T) {
	h := newHostSlots(t)
	p := startedPeer(t, NewHolder(h.plain))
	talk(p, ours, []step{ctl("INIT", ok, cmdInit, 0), tpm("Startup", tpmOK, startup), hashStart(), hashData("data")})
	readBlob(p, BlobPermanent, 0)
	talk(p, ours, []step{ctl("HASH_END", "00000009", cmdHashEnd), onesPCR(17), hashStart(), hashData("data")})
	dst := startedPeer(t, NewHolder(h.plain))
	if res := carry(t, p, dst); res != resOK {
		t.Fatalf("INIT at the destination = %#x", res)
	}
	talk(dst, ours, []step{hashEnd(), onesPCR(17), hashStart(), hashData("there"), hashEnd(), launched("there")})
}

// launchSlot is a slot that takes hash sequences, with an outcome.
type launchSlot struct {
	fakeSlot
	outcome error
}

func (l *launchSlot) HashSequence(_ context.Context, data []byte) error {
	l.note("hash " + string(data))
	return l.outcome
}

// launchMover is a fakeMover that takes hash sequences.
type launchMover struct{ fakeMover }

func (l *launchMover) HashSequence(_ context.Context, data []byte) error {
	l.note("hash")
	return nil
}

// The slot gets a sequence that is whole, and the peer what became of it.
func TestHashOutcomes(t *testing.T) {
	for _, tc := range []struct {
		outcome error
		want    result
	}{
		{nil, resOK},
		{&coproc.Error{Err: coproc.ErrUnsupported}, resBadOrdinal},
		{&coproc.Error{Err: coproc.ErrFailed}, resFail},
		{errors.New("away"), resFail},
	} {
		slot := &launchSlot{outcome: tc.outcome}
		p := startedPeer(t, slot)
		p.result(words(cmdInit, 0))
		for _, r := range [][]byte{words(cmdHashStart), hashRequest("da"), hashRequest("ta")} {
			if res := p.result(r); res != resOK {
				t.Errorf("request % x = %#x", r, res)
			}
		}
		if res := p.result(words(cmdHashEnd)); res != tc.want {
			t.Errorf("HASH_END of %v = %#x, want %#x", tc.outcome, res, tc.want)
		}
		p.result(words(cmdStop))
		if calls := slot.took(); !slices.Equal(calls, []string{"power-on 1", "hash data"}) {
			t.Errorf("the slot was asked to %q", calls)
		}
	}
}

// A slot that takes no hash sequences is served without.
func TestHashUnsupported(t *testing.T) {
	p := startedPeer(t, &fakeSlot{})
	talk(p, ours, []step{
		ctl("GET_CAPABILITY", "0000000000007caf", cmdGetCapability), ctl("INIT", ok, cmdInit, 0),
		ctl("HASH_START", badOrdinal, cmdHashStart), raw("HASH_DATA", badOrdinal, hashRequest(long(5000))), ctl("HASH_END", badOrdinal, cmdHashEnd),
		ctl("GET_CONFIG", "0000000000000000", cmdGetConfig),
	})
}
