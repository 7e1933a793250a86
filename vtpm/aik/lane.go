// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// lane is the way to the TPM of who has the turn. It keeps account of what is loaded,
// so that nothing stays there, and sends again what the TPM wants again.
type lane struct {
	tpm    transport.TPM
	loaded []tpm2.TPMHandle // objects and sessions, oldest first
}

const headerSize = 10 // of commands and responses: tag, size, code

// again are the warnings after which a command was not done, and may be soon: Part 2,
// 6.6.3. The first use of a password after a start is noted in NV before it is tried.
var again = []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate, tpm2.TPMRCNVUnavailable}

// Waits before a command is sent again: about four seconds in all.
const (
	firstWait = 2 * time.Millisecond
	lastWait  = time.Second
	maxTries  = 14
)

// Send implements transport.TPM.
func (t *lane) Send(cmd []byte) ([]byte, error) {
	wait := firstWait
	for try := 1; ; try++ {
		rsp, err := t.tpm.Send(cmd)
		if err != nil {
			return nil, err
		}
		if len(rsp) < headerSize || uint64(binary.BigEndian.Uint32(rsp[2:])) != uint64(len(rsp)) {
			return nil, errors.New("what came is no response of a TPM")
		}
		code := tpm2.TPMRC(binary.BigEndian.Uint32(rsp[6:]))
		if !slices.Contains(again, code) || try == maxTries {
			if code == tpm2.TPMRCSuccess {
				t.account(cmd, rsp)
			}
			return rsp, nil
		}
		time.Sleep(wait)
		wait = min(2*wait, lastWait)
	}
}

// account notes what a command that was done has loaded or flushed.
func (t *lane) account(cmd, rsp []byte) {
	if len(cmd) < headerSize {
		return
	}
	switch tpm2.TPMCC(binary.BigEndian.Uint32(cmd[6:])) {
	case tpm2.TPMCCCreatePrimary, tpm2.TPMCCLoad, tpm2.TPMCCContextLoad, tpm2.TPMCCHashSequenceStart, tpm2.TPMCCStartAuthSession:
		if len(rsp) >= headerSize+4 {
			t.loaded = append(t.loaded, tpm2.TPMHandle(binary.BigEndian.Uint32(rsp[headerSize:])))
		}
	case tpm2.TPMCCFlushContext, tpm2.TPMCCSequenceComplete:
		if len(cmd) >= headerSize+4 {
			t.forget(tpm2.TPMHandle(binary.BigEndian.Uint32(cmd[headerSize:])))
		}
	}
}

func (t *lane) forget(h tpm2.TPMHandle) {
	t.loaded = slices.DeleteFunc(t.loaded, func(l tpm2.TPMHandle) bool { return l == h })
}

// flush flushes all that is loaded. What the TPM cannot be asked for stays noted.
func (t *lane) flush() {
	for _, h := range slices.Backward(slices.Clone(t.loaded)) {
		t.drop(h)
	}
}

// drop flushes one, to make room.
func (t *lane) drop(h tpm2.TPMHandle) {
	_, err := tpm2.FlushContext{FlushHandle: h}.Execute(t)
	if _, answered := errors.AsType[tpm2.TPMRC](err); answered {
		t.forget(h) // the TPM knows no such handle: a resource manager dropped it
	}
}

// enter begins an operation: what the last one could not flush gets another chance,
// and only one. After a broken connection it is a resource manager that has dropped it,
// and may not even take the command.
func (t *lane) enter() {
	t.flush()
	t.loaded = nil
}

// leave ends an operation.
func (t *lane) leave() {
	t.flush()
	if link, ok := t.tpm.(interface{ Release() }); ok {
		link.Release()
	}
}

// ptInputBuffer is TPM_PT_INPUT_BUFFER: Part 2, 6.13.
const ptInputBuffer tpm2.TPMPT = 0x10d

// inputBuffer asks how much the TPM takes in a TPM2B_MAX_BUFFER. It is at least 1024
// in a PC's TPM.
func inputBuffer(t *lane) (int, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(ptInputBuffer), PropertyCount: 1}.Execute(t)
	if err != nil {
		return 0, tpmError("ask for its properties", err)
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		return 0, tpmError("ask for its properties", err)
	}
	if len(list.TPMProperty) != 1 || list.TPMProperty[0].Property != ptInputBuffer {
		return 0, fmt.Errorf("%w: it does not say how much it hashes at once", ErrTPM)
	}
	const least, most = 64, 1024
	if list.TPMProperty[0].Value < least {
		return 0, fmt.Errorf("%w: it hashes %d bytes at once", ErrTPM, list.TPMProperty[0].Value)
	}
	return int(min(list.TPMProperty[0].Value, most)), nil
}
