// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/admin"
)

// certificateJSON is an endorsement key of a slot with its certificate.
type certificateJSON struct {
	Handle      string `json:"handle"`                // 0x and 8 hexadecimal digits
	Index       string `json:"nv-index,omitempty"`    // where the guest finds it; the same form
	Certificate []byte `json:"certificate,omitempty"` // X.509, DER, base64
	Problem     string `json:"problem,omitempty"`
}

// certificates gives what the card tells of a slot's endorsement keys: nothing to
// who is no administrator, nor by a card that has no certificates.
func certificates(ctx context.Context, c *admin.Client, info abi.SlotInfo) ([]certificateJSON, error) {
	var all []certificateJSON
	for _, handle := range info.Keys.EKHandles() {
		got, err := c.EKCertificate(ctx, info, handle)
		one := certificateJSON{Handle: fmt.Sprintf("%#08x", handle), Certificate: got.DER}
		switch {
		case errors.Is(err, coproc.ErrDenied), errors.Is(err, coproc.ErrUnsupported):
			return nil, nil
		case errors.Is(err, coproc.ErrNotFound):
			continue
		case errors.Is(err, coproc.ErrCorrupt):
			one.Problem = err.Error()
		case err != nil:
			return nil, err
		case got.Index != 0:
			one.Index = fmt.Sprintf("%#08x", got.Index)
		}
		all = append(all, one)
	}
	return all, nil
}

// String says it in a line: where it is, who issued it, and the SHA-256 of the
// certificate.
func (c certificateJSON) String() string {
	switch {
	case c.Problem != "":
		return c.Problem
	case len(c.Certificate) == 0:
		return "not certified"
	}
	cert, err := x509.ParseCertificate(c.Certificate)
	if err != nil {
		return err.Error()
	}
	where := "not in the TPM"
	if c.Index != "" {
		where = "NV " + c.Index
	}
	sum := sha256.Sum256(c.Certificate)
	return fmt.Sprintf("%s, issued by card %s, SHA-256 %s", where, abi.Text([]byte(cert.Issuer.CommonName)), hex.EncodeToString(sum[:]))
}
