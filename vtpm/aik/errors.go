// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Causes; test for them with errors.Is.
var (
	// ErrTPM: the TPM does not answer, or not what it has to.
	ErrTPM = errors.New("host TPM")
	// ErrNoCertificate: the TPM's maker left no certificate of an endorsement key.
	ErrNoCertificate = errors.New("the TPM has no EK certificate in its NV memory")
	// ErrOtherTPM: the key's file was made with another TPM, or before it was cleared.
	ErrOtherTPM = errors.New("the key is of another TPM, or of this one before it was cleared")
	// ErrDamaged: a file in the folder is not what was written there.
	ErrDamaged = errors.New("damaged file")
	// ErrCredential: the credential is not for this TPM's EK and this key.
	ErrCredential = errors.New("the credential is not for this TPM and this key")
	// ErrForged: what was to be signed looks like a statement of the TPM itself.
	ErrForged = errors.New("a restricted key signs nothing that begins like a TPM's own structures")
	// ErrAuth: the owner's or endorsement authorization is not that of the TPM.
	ErrAuth = errors.New("the TPM wants another authorization value")
	// ErrLockout: the TPM counts too many wrong authorizations.
	ErrLockout = errors.New("the TPM is in dictionary attack lockout")
	// ErrFull: the TPM has no room for objects or sessions.
	ErrFull = errors.New("the TPM has no room")
	// ErrClosed: the Host was closed.
	ErrClosed = errors.New("closed")
)

// explained are codes of the TPM that an operator can do something about.
var explained = []struct {
	code  tpm2.TPMRC
	cause error
	help  string
}{
	{tpm2.TPMRCLockout, ErrLockout, "wait, or reset it with tpm2_dictionarylockout --clear-lockout"},
	{tpm2.TPMRCObjectMemory, ErrFull, "other programs keep objects in it; use the kernel's resource manager, device:/dev/tpmrm0"},
	{tpm2.TPMRCSessionMemory, ErrFull, "other programs keep sessions in it; use the kernel's resource manager, device:/dev/tpmrm0"},
	{tpm2.TPMRCSessionHandles, ErrFull, "other programs keep sessions in it; flush them with tpm2_flushcontext --saved-session"},
	{tpm2.TPMRCAuthFail, ErrAuth, "give the hierarchy's, or clear it with tpm2_changeauth"},
	{tpm2.TPMRCBadAuth, ErrAuth, "give the hierarchy's, or clear it with tpm2_changeauth"},
}

// tpmError makes an error of what a command gave, with its cause and what helps.
func tpmError(what string, err error) error {
	for _, e := range explained {
		if errors.Is(err, e.code) {
			return fmt.Errorf("%w: %s: %w: %s: %w", ErrTPM, what, e.cause, e.help, err)
		}
	}
	return fmt.Errorf("%w: %s: %w", ErrTPM, what, err)
}
