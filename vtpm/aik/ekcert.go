// SPDX-License-Identifier: Apache-2.0

package aik

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// ekFile has the EK certificate of a TPM whose maker left none in it, then its
// issuers, PEM.
const ekFile = "ek.pem"

// EKCertificate gives the certificate of an endorsement key, DER, and the issuers
// that the TPM has with it, if it has any. It is the one in the folder's file ek.pem, if
// there is such a file; else the first in the TPM's NV memory, curves before RSA: keys
// on curves are quicker to make. The error is ErrNoCertificate if there is none.
//
// Neither is verified here: that is for the authority, which knows the makers.
func (h *Host) EKCertificate() (der []byte, chain [][]byte, err error) {
	err = h.do(context.Background(), func(t *lane) (err error) {
		der, chain, err = h.certificate(t)
		return err
	})
	return der, chain, err
}

func (h *Host) certificate(t *lane) (der []byte, chain [][]byte, err error) {
	der, chain, err = readEKFile(filepath.Join(h.dir, ekFile))
	if !errors.Is(err, fs.ErrNotExist) {
		return der, chain, err
	}
	there, err := endorsementIndices(t)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range profiles {
		if !slices.Contains(there, p.index) {
			continue
		}
		b, err := h.readNV(t, p.index)
		if err != nil {
			return nil, nil, err
		}
		if der, _, err = cutDER(b); err != nil {
			continue // defined, and never written
		}
		chain, err = h.issuers(t, there)
		return der, chain, err
	}
	return nil, nil, fmt.Errorf("%w: get the one of its EK from its maker's site, as is usual for the TPMs in processors, and put it and its issuers, PEM, into %s",
		ErrNoCertificate, filepath.Join(h.dir, ekFile))
}

// issuers reads the certificates of issuers: one after the other, over as many
// indices as they need.
func (h *Host) issuers(t *lane, there []tpm2.TPMHandle) (chain [][]byte, err error) {
	var all []byte
	for _, index := range there {
		if index < firstChain || index > lastChain {
			continue
		}
		b, err := h.readNV(t, index)
		if err != nil {
			return nil, err
		}
		if all = append(all, b...); len(all) > maxChain {
			return nil, fmt.Errorf("%w: more than %d bytes of certificates", ErrTPM, maxChain)
		}
	}
	for len(all) > 0 {
		der, rest, err := cutDER(all)
		if err != nil {
			break // padding
		}
		chain, all = append(chain, der), rest
	}
	return chain, nil
}

func readEKFile(path string) (der []byte, chain [][]byte, err error) {
	text, err := readFile(path)
	if err != nil {
		return nil, nil, err
	}
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, nil, fmt.Errorf("%w: %s has a %s", ErrDamaged, path, block.Type)
		}
		chain, text = append(chain, block.Bytes), rest
	}
	if len(chain) == 0 {
		return nil, nil, fmt.Errorf("%w: %s has no certificate", ErrDamaged, path)
	}
	return chain[0], chain[1:], nil
}
