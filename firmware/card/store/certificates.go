// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"hwvtpm/coproc/abi"
	"hwvtpm/firmware/sealed"
)

// certificatesName is that of the card's certificates in the store, and of a
// slot's in its directory. Neither is sealed: nothing in them is secret, and who
// reads them checks the signatures.
const certificatesName = "certificates"

const (
	certificatesMagic   = "hwvtpm-c"
	certificatesVersion = 1
	certificatesHeader  = 16
)

// appendCertificates appends a slot's file of certificates to dst.
//
//	 0                         8            12           16
//	+-------------------------+------------+------------+
//	| magic "hwvtpm-c"        | version 1  | reserved   |
//	+-------------------------+------------+------------+
//	| list, see abi.AppendEKCertificates ...            | 16
//	+---------------------------------------------------+
//
// Little-endian.
func appendCertificates(dst []byte, list []abi.EKCertificate) []byte {
	dst = append(dst, certificatesMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, certificatesVersion)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	return abi.AppendEKCertificates(dst, list)
}

func parseCertificates(b []byte) ([]abi.EKCertificate, error) {
	le := binary.LittleEndian
	if len(b) < certificatesHeader || !bytes.HasPrefix(b, []byte(certificatesMagic)) {
		return nil, fmt.Errorf("not a file of certificates: %w", sealed.ErrDamaged)
	}
	if v := le.Uint32(b[8:]); v != certificatesVersion {
		return nil, fmt.Errorf("certificates have version %d, this program knows %d: %w", v, certificatesVersion, sealed.ErrVersion)
	}
	list, err := abi.ParseEKCertificates(b[certificatesHeader:])
	if err != nil || le.Uint32(b[12:]) != 0 {
		return nil, fmt.Errorf("certificates: %w (%v)", sealed.ErrDamaged, err)
	}
	return list, nil
}

// Certificates gives the endorsement keys of a slot with their certificates, as
// they were saved last. If that never happened the error is fs.ErrNotExist. The
// caller checks what is in them.
func (s *Store) Certificates(id sealed.SlotID) ([]abi.EKCertificate, error) {
	b, err := sealed.NewFile(s.slotPath(id, certificatesName)).Read()
	if err != nil {
		return nil, err
	}
	return parseCertificates(b)
}

// SaveCertificates replaces what Certificates gives.
func (s *Store) SaveCertificates(id sealed.SlotID, list []abi.EKCertificate) error {
	return s.replace(s.slotPath(id, certificatesName), appendCertificates(nil, list))
}

// CardCertificates gives the certificates of the card's own key, as they were saved
// last. If that never happened the error is fs.ErrNotExist. The caller checks them.
func (s *Store) CardCertificates() ([]byte, error) {
	return sealed.NewFile(s.path(certificatesName)).Read()
}

// SaveCardCertificates replaces what CardCertificates gives.
func (s *Store) SaveCardCertificates(der []byte) error {
	return s.replace(s.path(certificatesName), der)
}
