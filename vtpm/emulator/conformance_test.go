// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"bytes"
	"context"
	"encoding/hex"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hwvtpm/coproc"
	"hwvtpm/coproc/sim"
)

// subject is a server that the conformance suite talks to.
type subject int

const (
	swtpm subject = iota
	ours
)

// step is one thing that a conversation does. want is the answer in hex, "hung
// up" for the end of the channel, or empty if it is not looked at. differs is
// our answer where it is another one; the reason stands in docs/tpm-emulator.md.
type step struct {
	what    string
	do      func(p *peer) []byte
	want    string
	differs string
}

func (s step) wanted(who subject) string {
	if who == ours && s.differs != "" {
		return s.differs
	}
	return s.want
}

const hungUp = "hung up"

// ctl is a step on the control channel: a request of a command and words.
func ctl(what, want string, cmd command, rest ...uint32) step {
	return raw(what, want, words(cmd, rest...))
}

func raw(what, want string, b []byte) step {
	return step{what: what, want: want, do: func(p *peer) []byte { return p.ask(b) }}
}

// tpm is a step on the data channel.
func tpm(what, want string, cmd []byte) step {
	return step{what: what, want: want, do: func(p *peer) []byte { return p.execute(cmd) }}
}

// open is SET_DATAFD with a socket.
func open(want string) step {
	return step{what: "SET_DATAFD", want: want, do: func(p *peer) []byte {
		return order.AppendUint32(nil, uint32(p.openData()))
	}}
}

func (s step) ours(answer string) step { s.differs = answer; return s }

const (
	ok           = "00000000"
	badParameter = "00000003"
	badOrdinal   = "0000000a"
	ioError      = "0000001f"
	badLocality  = "0000003d"

	failure     = "80010000000a00000101"
	tooLong     = "80010000000a00000142"
	extended    = "80020000001300000000" + "00000000" + "0000010000"
	tpmOK       = "80010000000a00000000"
	zeroDigest  = "0000000000000000000000000000000000000000000000000000000000000000"
	onceAllZero = "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b"
)

// readDigest reads the PCR and leaves of the response the digest.
func readDigest(want string) step {
	return step{what: "PCR_Read", want: want, do: func(p *peer) []byte {
		resp := p.execute(readPCR)
		if len(resp) < 32 || codeOf(resp) != 0 {
			return resp
		}
		return pcrValue(resp)
	}}
}

// conversations is the suite. Each starts with a server that has just started
// and a new TPM.
var conversations = map[string][]step{
	"as QEMU starts": {
		open(ok),
		tpm("version probe", failure, readClock),
		ctl("GET_CAPABILITY", "000000000000ffff", cmdGetCapability).ours("0000000000007cbf"),
		ctl("STOP", ok, cmdStop),
		ctl("SET_BUFFERSIZE query", "00000000"+"00001000"+"00000af8"+"00001000", cmdSetBufferSize, 0),
		ctl("GET_TPMESTABLISHED", badOrdinal, cmdGetTPMEstablished).ours("0000000000000000"),
		ctl("STOP", ok, cmdStop),
		ctl("SET_BUFFERSIZE for tpm-crb", "00000000"+"00000f80"+"00000af8"+"00001000", cmdSetBufferSize, 3968),
		ctl("INIT", ok, cmdInit, 0),
		ctl("SET_LOCALITY", ok, cmdSetLocality, 0),
		ctl("GET_TPMESTABLISHED", "0000000000000000", cmdGetTPMEstablished),
		tpm("before Startup", "80010000000a00000100", getRandom),
		tpm("Startup", tpmOK, startup),
		tpm("SelfTest", tpmOK, selfTest),
		ctl("SHUTDOWN", ok, cmdShutdown),
		{what: "after SHUTDOWN", want: hungUp, do: func(p *peer) []byte { return p.answer() }},
	},
	"a machine's reset resets PCRs": {
		open(ok), ctl("INIT", ok, cmdInit, 0), tpm("Startup", tpmOK, startup),
		readDigest(zeroDigest),
		tpm("PCR_Extend", extended, extendPCR()),
		readDigest(onceAllZero),
		ctl("STOP", ok, cmdStop),
		tpm("stopped", failure, getRandom),
		ctl("SET_BUFFERSIZE", "", cmdSetBufferSize, 3968),
		ctl("INIT", ok, cmdInit, 0), tpm("Startup", tpmOK, startup),
		readDigest(zeroDigest),
		tpm("PCR_Extend", extended, extendPCR()),
		ctl("INIT without STOP", ok, cmdInit, 0), tpm("Startup", tpmOK, startup),
		readDigest(zeroDigest),
		tpm("PCR_Extend", extended, extendPCR()),
		ctl("INIT that would delete volatile state", ok, cmdInit, initDeleteVolatile), tpm("Startup", tpmOK, startup),
		readDigest(zeroDigest),
	},
	"before INIT": {
		ctl("CANCEL_TPM_CMD", badOrdinal, cmdCancelTPMCmd),
		ctl("STORE_VOLATILE", badOrdinal, cmdStoreVolatile),
		ctl("HASH_START", badOrdinal, cmdHashStart),
		ctl("HASH_DATA", badOrdinal, cmdHashData, 4, 0),
		ctl("HASH_END", badOrdinal, cmdHashEnd),
		ctl("RESET_TPMESTABLISHED", badOrdinal, cmdResetTPMEstablished, 3<<24),
		ctl("GET_STATEBLOB", badOrdinal, cmdGetStateBlob, 1, 1, 0),
		ctl("STOP", ok, cmdStop),
		ctl("SHUTDOWN", ok, cmdShutdown),
	},
	"while it runs": {
		ctl("INIT", ok, cmdInit, 0),
		ctl("CANCEL_TPM_CMD", ok, cmdCancelTPMCmd),
		ctl("STORE_VOLATILE", ok, cmdStoreVolatile).ours(badOrdinal),
		ctl("SET_STATEBLOB", badOrdinal, cmdSetStateBlob, 0, 1, 4, 0),
		ctl("SET_BUFFERSIZE", badOrdinal, cmdSetBufferSize, 3968),
		ctl("SET_BUFFERSIZE query", "00000000"+"00001000"+"00000af8"+"00001000", cmdSetBufferSize, 0),
		ctl("GET_CONFIG", "0000000000000000", cmdGetConfig),
	},
	"localities": {
		raw("SET_LOCALITY 3 in one byte", ok, append(words(cmdSetLocality), 3)),
		ctl("SET_LOCALITY 1 in four", ok, cmdSetLocality, 1<<24),
		ctl("SET_LOCALITY 4", ok, cmdSetLocality, 4<<24).ours(badLocality),
		ctl("SET_LOCALITY 5", badLocality, cmdSetLocality, 5<<24),
		ctl("SET_LOCALITY 255", badLocality, cmdSetLocality, 255<<24),
		ctl("INIT", ok, cmdInit, 0),
		ctl("RESET_TPMESTABLISHED from 0", badLocality, cmdResetTPMEstablished, 0),
		ctl("RESET_TPMESTABLISHED from 3", ok, cmdResetTPMEstablished, 3<<24),
		ctl("RESET_TPMESTABLISHED from 4", ok, cmdResetTPMEstablished, 4<<24),
		ctl("RESET_TPMESTABLISHED from 5", badLocality, cmdResetTPMEstablished, 5<<24),
	},
	"buffer sizes": {
		ctl("0", "00000000"+"00001000"+"00000af8"+"00001000", cmdSetBufferSize, 0),
		ctl("1", "00000000"+"00000af8"+"00000af8"+"00001000", cmdSetBufferSize, 1),
		ctl("2809", "00000000"+"00000af9"+"00000af8"+"00001000", cmdSetBufferSize, 2809),
		ctl("too much", "00000000"+"00001000"+"00000af8"+"00001000", cmdSetBufferSize, 0xffffffff),
		ctl("no size", badParameter, cmdSetBufferSize),
		raw("half a size", badParameter, append(words(cmdSetBufferSize), 0, 0)),
	},
	"bodies that are too long": {
		ctl("GET_CAPABILITY", "000000000000ffff", cmdGetCapability, 1, 2, 3).ours("0000000000007cbf"),
		ctl("INIT", badParameter, cmdInit, 0, 0),
		ctl("STOP", badParameter, cmdStop, 0),
		ctl("SHUTDOWN", badParameter, cmdShutdown, 0),
		ctl("GET_CONFIG", badParameter, cmdGetConfig, 0),
		ctl("SET_LOCALITY", ok, cmdSetLocality, 0, 0, 0),
		ctl("SET_BUFFERSIZE", "00000000"+"00001000"+"00000af8"+"00001000", cmdSetBufferSize, 0, 0),
		ctl("INIT", ok, cmdInit, 0),
		ctl("CANCEL_TPM_CMD", badParameter, cmdCancelTPMCmd, 0),
		ctl("GET_TPMESTABLISHED", badParameter, cmdGetTPMEstablished, 0),
		ctl("STORE_VOLATILE", badParameter, cmdStoreVolatile, 0).ours(badOrdinal),
		ctl("RESET_TPMESTABLISHED", ok, cmdResetTPMEstablished, 3<<24, 0),
	},
	"unknown requests": {
		ctl("0", badOrdinal, 0),
		ctl("LOCK_STORAGE, which 0.7 lacks", badOrdinal, cmdLockStorage, 300),
		ctl("20", badOrdinal, 20, 1, 2, 3),
		ctl("all ones", badOrdinal, 0xffffffff),
		ctl("the stream is in step", "0000000000000000", cmdGetConfig),
	},
	"an INIT that stays unfinished": {
		ctl("INIT without flags", hungUp, cmdInit),
	},
	"a request that stays unfinished": {
		raw("two bytes", hungUp, []byte{0, 0}),
	},
	"data channels": {
		ctl("no descriptor", badParameter, cmdSetDataFD),
		open(ok),
		open(ioError),
		ctl("no descriptor, one is there", ioError, cmdSetDataFD),
		tpm("still there", failure, getRandom),
		{what: "close it", do: func(p *peer) []byte { p.closeData(); return nil }},
		{what: "SET_DATAFD, until that was noticed", want: ok, do: func(p *peer) []byte {
			res := p.openData()
			for end := time.Now().Add(hang); res != resOK && time.Now().Before(end); res = p.openData() {
				time.Sleep(time.Millisecond)
			}
			return order.AppendUint32(nil, uint32(res))
		}},
		tpm("the next one", failure, getRandom),
	},
	"a descriptor that nobody asked for": {
		{what: "GET_CONFIG", want: "0000000000000000", do: func(p *peer) []byte {
			return p.ask(words(cmdGetConfig), int(os.Stdin.Fd()))
		}},
	},
	"commands of a wrong size": {
		open(ok), ctl("INIT", ok, cmdInit, 0), tpm("Startup", tpmOK, startup),
		tpm("says less", tooLong, append(bytes.Clone(getRandom), 0)),
		tpm("says nothing", "80010000000a00000084", make([]byte, 12)).ours(tooLong),
		tpm("says too much", tooLong, append([]byte{0x80, 1, 0xff, 0xff, 0xff, 0xff}, make([]byte, 8)...)),
		tpm("still in step", tpmOK, selfTest),
	},
	"commands longer than the buffer": {
		open(ok), ctl("SET_BUFFERSIZE", "", cmdSetBufferSize, minBuffer), ctl("INIT", ok, cmdInit, 0),
		tpm("Startup", tpmOK, startup),
		tpm("one byte too long", tooLong, tpmCommand(0x17b, make([]byte, minBuffer+1-tpmHeader)...)),
		tpm("as long as can be", "80010000000a00000095", tpmCommand(0x17b, make([]byte, minBuffer-tpmHeader)...)),
	},
	"information": {
		raw("nothing wanted", ok+"00000003"+"00000003"+hex.EncodeToString([]byte("{}\x00")), append(words(cmdGetInfo), make([]byte, 16)...)),
		raw("from the second byte on", ok+"00000003"+"00000002"+hex.EncodeToString([]byte("}\x00")), words(cmdGetInfo, 0, 0, 1, 0)),
		raw("from behind the end on", badParameter, words(cmdGetInfo, 0, 0, 2, 0)),
		ctl("too short", badParameter, cmdGetInfo, 0, 0, 0),
	},
}

func allConversations() map[string][]step {
	all := maps.Clone(conversations)
	maps.Copy(all, hashConversations)
	return all
}

func TestConversations(t *testing.T) {
	start := map[string]func(*testing.T) string{"ours": startOurs}
	if os.Getenv("HWVTPM_TEST_ROOT") == "1" {
		start["swtpm"] = startSwtpm
	} else {
		t.Log("set HWVTPM_TEST_ROOT=1 to have swtpm confirm what is expected of it")
	}
	for who, start := range start {
		t.Run(who, func(t *testing.T) {
			for name, steps := range allConversations() {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					p := dialPeer(t, start(t))
					talk(p, map[string]subject{"ours": ours, "swtpm": swtpm}[who], steps)
				})
			}
		})
	}
}

func talk(p *peer, who subject, steps []step) {
	for i, s := range steps {
		got := s.do(p)
		want := s.wanted(who)
		text := hex.EncodeToString(got)
		if got == nil {
			text = hungUp
		}
		if want != "" && text != want {
			p.Errorf("step %d, %s: answer %s, want %s", i, s.what, text, want)
		}
	}
}

// startOurs serves a new TPM of a simulated card and returns the control socket.
func startOurs(t *testing.T) string {
	return serveSlot(t, simSlot(t), nil)
}

func simSlot(t testing.TB) coproc.Slot {
	t.Helper()
	card, err := sim.Open(sim.Config{Dir: filepath.Join(t.TempDir(), "tpm"), EnginePath: built.Path(t, sim.EngineName)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { card.Close() })
	slot, err := card.OpenSlot(t.Context(), sim.SlotName)
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

// serveSlot serves a slot until the test ends.
func serveSlot(t testing.TB, slot coproc.Slot, edit func(*Config)) (path string) {
	t.Helper()
	cfg := Config{Slot: slot, OnConnect: func(Peer) coproc.RunID { return coproc.RunID{1} }, Patience: 500 * time.Millisecond}
	if edit != nil {
		edit(&cfg)
	}
	server, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "c")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(ctx, ln); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait(); ln.Close() })
	return path
}

// startSwtpm starts swtpm with a new TPM.
func startSwtpm(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "c")
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,path="+path)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("swtpm says:\n%s", &log)
		}
	})
	for end := time.Now().Add(hang); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return path
		}
		if time.Now().After(end) {
			t.Fatalf("swtpm made no socket:\n%s", &log)
		}
	}
}
