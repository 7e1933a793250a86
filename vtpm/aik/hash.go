// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// generated tells whether data begin like what a TPM says of itself (Part 2, 6.2).
// A restricted key would not sign them: its TPM gives no ticket for their digest.
func generated(msg []byte) bool {
	return bytes.HasPrefix(msg, binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMGeneratedValue)))
}

// hash has the TPM hash a message, and gives its ticket for that the message may be
// signed. The hierarchy is that of the ticket's proof: any but the null hierarchy.
func (h *Host) hash(t *lane, msg []byte) (digest []byte, ticket tpm2.TPMTTKHashCheck, err error) {
	if len(msg) > h.limit {
		digest, ticket, err = h.hashSequence(t, msg)
	} else {
		var rsp *tpm2.HashResponse
		rsp, err = tpm2.Hash{Data: tpm2.TPM2BMaxBuffer{Buffer: msg}, HashAlg: hashAlg, Hierarchy: tpm2.TPMRHOwner}.Execute(t)
		if err == nil {
			digest, ticket = rsp.OutHash.Buffer, rsp.Validation
		}
	}
	if err != nil {
		return nil, ticket, tpmError("hash", err)
	}
	if sum := sha256.Sum256(msg); !bytes.Equal(digest, sum[:]) {
		return nil, ticket, fmt.Errorf("%w: it hashed something else", ErrTPM)
	}
	return digest, ticket, nil
}

// hashSequence hashes what does not fit into one command.
func (h *Host) hashSequence(t *lane, msg []byte) ([]byte, tpm2.TPMTTKHashCheck, error) {
	none := tpm2.TPMTTKHashCheck{}
	start, err := tpm2.HashSequenceStart{HashAlg: hashAlg}.Execute(t)
	if err != nil {
		return nil, none, err
	}
	seq := tpm2.AuthHandle{Handle: start.SequenceHandle, Auth: tpm2.PasswordAuth(nil)}
	for len(msg) > h.limit {
		_, err := tpm2.SequenceUpdate{SequenceHandle: seq, Buffer: tpm2.TPM2BMaxBuffer{Buffer: msg[:h.limit]}}.Execute(t)
		if err != nil {
			return nil, none, err
		}
		msg = msg[h.limit:]
	}
	rsp, err := tpm2.SequenceComplete{SequenceHandle: seq, Buffer: tpm2.TPM2BMaxBuffer{Buffer: msg}, Hierarchy: tpm2.TPMRHOwner}.Execute(t)
	if err != nil {
		return nil, none, err
	}
	return rsp.Result.Buffer, rsp.Validation, nil
}
