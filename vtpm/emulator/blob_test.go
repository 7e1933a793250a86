// SPDX-License-Identifier: Apache-2.0

package emulator

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"hwvtpm/coproc"
)

const (
	noBlob    = "00000800" + "00000000" + "00000000" + "00000000"
	blobFails = "00000009" + "00000000" + "00000000" + "00000000"
)

// blobConversations are of servers whose state can move.
var blobConversations = map[string][]step{
	"capabilities": {
		ctl("GET_CAPABILITY", "000000000000ffff", cmdGetCapability).ours("0000000000017faf"),
		ctl("GET_CONFIG", "0000000000000000", cmdGetConfig).ours("0000000000000002"),
		ctl("LOCK_STORAGE", badOrdinal, cmdLockStorage, 300).ours(ok),
	},
	"order": {
		ctl("GET_STATEBLOB while off", badOrdinal, cmdGetStateBlob, 1, 1, 0),
		ctl("INIT", ok, cmdInit, 0),
		ctl("SET_STATEBLOB while on", badOrdinal, cmdSetStateBlob, 0, 1, 4, 0),
		ctl("the blob that a TPM 2.0 has not", noBlob, cmdGetStateBlob, 1, 3, 0),
		ctl("STOP", ok, cmdStop),
		ctl("the stream is in step", ok, cmdStop),
	},
	"bad blobs": {
		ctl("kind 9", badParameter, cmdSetStateBlob, 0, 9, 4, 0),
		ctl("more data than said", badParameter, cmdSetStateBlob, 0, 1, 4, 0, 0),
		ctl("the stream is in step", ok, cmdStop),
	},
	"a blob that stays unfinished": {
		ctl("four bytes of eight", hungUp, cmdSetStateBlob, 0, 1, 8, 0),
	},
}

func TestBlobConversations(t *testing.T) {
	start := map[string]func(*testing.T) string{"ours": func(t *testing.T) string {
		return serveSlot(t, &fakeMover{blobs: map[BlobKind][]byte{}}, nil)
	}}
	if os.Getenv("HWVTPM_TEST_ROOT") == "1" {
		start["swtpm"] = startSwtpm
	} else {
		t.Log("set HWVTPM_TEST_ROOT=1 to have swtpm confirm what is expected of it")
	}
	for who, start := range start {
		for name, steps := range blobConversations {
			t.Run(who+"/"+name, func(t *testing.T) {
				t.Parallel()
				talk(dialPeer(t, start(t)), map[string]subject{"ours": ours, "swtpm": swtpm}[who], steps)
			})
		}
	}
}

// readBlob is GET_STATEBLOB as QEMU does it.
func readBlob(p *peer, kind BlobKind, offset uint32) (head []uint32, blob []byte) {
	p.Helper()
	p.send(words(cmdGetStateBlob, 1, uint32(kind), offset))
	var b []byte
	for len(b) < getBlobHead || len(b) < getBlobHead+int(order.Uint32(b[12:])) {
		more := p.answer()
		if more == nil {
			p.Fatalf("hung up after % x", b)
		}
		b = append(b, more...)
	}
	for i := range getBlobHead / 4 {
		head = append(head, order.Uint32(b[4*i:]))
	}
	return head, b[getBlobHead:]
}

// A machine's state goes over to another server as QEMU carries it.
func TestMigration(t *testing.T) {
	permanent, volatile := bytes.Repeat([]byte("permanent"), 20000), bytes.Repeat([]byte("volatile"), 1000)
	source := &fakeMover{blobs: map[BlobKind][]byte{BlobPermanent: permanent, BlobVolatile: volatile}}
	target := &fakeMover{blobs: map[BlobKind][]byte{}}
	gone := make(chan error, 1)
	src := dialPeer(t, serveSlot(t, source, func(c *Config) { c.OnDisconnect = func(err error) { gone <- err } }))
	src.openData()
	src.result(words(cmdInit, 0))
	src.rc(getRandom)

	dst := startedPeer(t, target)
	dst.result(words(cmdStop))
	for _, kind := range []BlobKind{BlobPermanent, BlobVolatile} { // QEMU's order
		head, blob := readBlob(src, kind, 0)
		want := source.blobs[kind]
		if !slices.Equal(head, []uint32{0, stateEncrypted, uint32(len(want)), uint32(len(want))}) || !bytes.Equal(blob, want) {
			t.Fatalf("GET_STATEBLOB %d: %x and %d bytes", kind, head, len(blob))
		}
		dst.send(words(cmdSetStateBlob, head[1], uint32(kind), uint32(len(blob)))) // as QEMU: two writes
		if res := dst.result(blob); res != resOK {
			t.Fatalf("SET_STATEBLOB %d = %#x", kind, res)
		}
	}
	if head, _ := readBlob(src, blobSaveState, 0); head[0] != uint32(resRetry) {
		t.Errorf("GET_STATEBLOB 3: %x", head)
	}
	if res := dst.result(words(cmdInit, initDeleteVolatile)); res != resOK {
		t.Errorf("INIT = %#x", res)
	}
	if got := strings.Join(target.took(), ", "); got != "power-on 1" {
		t.Errorf("the target's slot was asked to %q: it must resume", got)
	}
	// A second INIT is a reset of the machine and must not resume again.
	dst.result(words(cmdInit, 0))
	if got := strings.Join(target.took(), ", "); got != "reset" {
		t.Errorf("a reset of the machine: %q", got)
	}
	// The source's TPM is another host's now, and is not even shut down.
	src.result(words(cmdShutdown))
	<-gone
	if got := strings.Join(source.took(), ", "); got != "power-on 1, random" {
		t.Errorf("the source's slot was asked to %q", got)
	}
}

// A migration that was given up leaves a TPM that goes on, and ends, as ever.
func TestMigrationGivenUp(t *testing.T) {
	slot := &fakeMover{blobs: map[BlobKind][]byte{}}
	p := startedPeer(t, slot)
	p.result(words(cmdInit, 0))
	readBlob(p, blobSaveState, 0)
	p.result(words(cmdLockStorage, 300))
	p.rc(getRandom)
	p.result(words(cmdStop))
	if got := strings.Join(slot.took(), ", "); got != "power-on 1, random, shutdown" {
		t.Errorf("the slot was asked to %q", got)
	}
}

func TestPartsOfABlob(t *testing.T) {
	slot := &fakeMover{blobs: map[BlobKind][]byte{BlobPermanent: []byte("permanent")}}
	p := startedPeer(t, slot)
	p.result(words(cmdInit, 0))
	for offset, want := range map[uint32]string{0: "permanent", 4: "anent", 9: "", 10: "", 0xffffffff: ""} {
		if head, blob := readBlob(p, BlobPermanent, offset); string(blob) != want || head[2] != uint32(len(want)) || head[3] != head[2] {
			t.Errorf("from %d on: %x %q, want %q", offset, head, blob, want)
		}
	}
	if head, _ := readBlob(p, BlobVolatile, 0); head[0] != uint32(resRetry) {
		t.Errorf("a part that is not there: %x", head)
	}
	if head, _ := readBlob(p, 9, 0); head[0] != uint32(resFail) {
		t.Errorf("a part that nobody knows: %x", head)
	}
}

// Blobs come from anywhere: what the slot refuses starts nothing, and one that
// claims too much ends the session after its answer.
func TestHostileBlobs(t *testing.T) {
	slot := &fakeMover{blobs: map[BlobKind][]byte{}}
	p := startedPeer(t, slot)
	for _, blob := range [][]byte{{0xff, 1}, {}} {
		if res := p.result(append(words(cmdSetStateBlob, 0, 2, uint32(len(blob))), blob...)); res != resFail {
			t.Errorf("SET_STATEBLOB of % x = %#x, want %#x", blob, res, resFail)
		}
	}
	p.result(words(cmdInit, initDeleteVolatile))
	if calls := slot.took(); !slices.Equal(calls, []string{"power-on 1"}) {
		t.Errorf("the slot was asked to %v", calls)
	}
	if res := p.result(words(cmdSetStateBlob, 0, 1, maxBlob+1)); res != resFail {
		t.Errorf("an absurd blob: %#x", res)
	}
	if p.answer() != nil {
		t.Error("the session goes on, though nobody knows where the blob ends")
	}
}

// A slot that took a volatile state and comes up without it must not serve the
// guest as if nothing had happened.
func TestStateThatIsNotContinued(t *testing.T) {
	slot := &neverResumes{fakeMover{blobs: map[BlobKind][]byte{}}}
	p := startedPeer(t, slot)
	p.result(append(words(cmdSetStateBlob, 0, 2, 1), 1))
	if res := p.result(words(cmdInit, initDeleteVolatile)); res != resFail {
		t.Errorf("INIT = %#x, want %#x", res, resFail)
	}
	if rc := p.rc(getRandom); rc != rcFailure {
		t.Errorf("a command after that: %#x", rc)
	}
}

type neverResumes struct{ fakeMover }

func (*neverResumes) PowerOn(context.Context, coproc.RunID) (coproc.PowerOnResult, error) {
	return coproc.PowerOnResult{}, nil
}
