// SPDX-License-Identifier: Apache-2.0

package ekcert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
)

// Model says what kind of TPM an EK certificate speaks of.
type Model struct {
	Manufacturer string // TCG vendor id, "id:" and 8 hexadecimal digits
	Model        string // part number
	Version      string // of the firmware, "id:" and 8 hexadecimal digits
	Family       string // of the specification, "2.0"
	Level        int    // of the specification
	Revision     int    // of the specification, such as 164 for 1.64
}

// VTPMEK is the template for a vTPM's endorsement key, by the TCG's "EK
// Credential Profile for TPM Family 2.0", 3.2: what the TPM is stands in a
// critical subject alternative name, and which specification it follows in the
// subject directory attributes. Beside them the SAN has the machine's URN. The
// card's AIK signs it. key is the endorsement key, an RSA or ECDSA public key.
func VTPMEK(vm string, m Model, key crypto.PublicKey, v Validity) (*x509.Certificate, error) {
	uri, err := URN(KindVM, vm)
	if err != nil {
		return nil, err
	}
	san, err := tpmAltName(m, uri.String())
	if err != nil {
		return nil, err
	}
	attributes, err := tpmSpecification(m)
	if err != nil {
		return nil, err
	}
	t := Base(vm, v)
	t.UnknownExtKeyUsage = []asn1.ObjectIdentifier{OIDEKCertificate}
	t.ExtraExtensions = []pkix.Extension{san, attributes}
	switch key.(type) {
	case *rsa.PublicKey:
		t.KeyUsage = x509.KeyUsageKeyEncipherment
	case *ecdsa.PublicKey:
		t.KeyUsage = x509.KeyUsageKeyAgreement
	default:
		return nil, fmt.Errorf("an endorsement key of type %T", key)
	}
	return t, nil
}

// tpmAltName is the extension
//
//	SubjectAltName critical ::= SEQUENCE {
//	    directoryName [4] { manufacturer, model, version },
//	    uniformResourceIdentifier [6] urn:hwvtpm:vm:ID }
func tpmAltName(m Model, uri string) (pkix.Extension, error) {
	var rdns pkix.RDNSequence
	for _, a := range []struct {
		oid   asn1.ObjectIdentifier
		value string
	}{{oidTPMManufacturer, m.Manufacturer}, {oidTPMModel, m.Model}, {oidTPMVersion, m.Version}} {
		rdns = append(rdns, pkix.RelativeDistinguishedNameSET{{Type: a.oid, Value: utf8String(a.value)}})
	}
	name, err := asn1.Marshal(rdns)
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("TPM name: %w", err)
	}
	value, err := asn1.Marshal([]asn1.RawValue{
		{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name},
		{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)},
	})
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("subject alternative name: %w", err)
	}
	return pkix.Extension{Id: OIDSubjectAltName, Critical: true, Value: value}, nil
}

func utf8String(s string) asn1.RawValue {
	return asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(s)}
}

// tpmSpecification is the extension
//
//	SubjectDirectoryAttributes ::= SEQUENCE { SEQUENCE {
//	    tPMSpecification, SET { SEQUENCE { family, level, revision } } } }
func tpmSpecification(m Model) (pkix.Extension, error) {
	type specification struct {
		Family          string `asn1:"utf8"`
		Level, Revision int
	}
	type attribute struct {
		Type   asn1.ObjectIdentifier
		Values []specification `asn1:"set"`
	}
	value, err := asn1.Marshal([]attribute{{oidTPMSpecification, []specification{{m.Family, m.Level, m.Revision}}}})
	if err != nil {
		return pkix.Extension{}, fmt.Errorf("TPM specification: %w", err)
	}
	return pkix.Extension{Id: oidSubjectDirectoryAttributes, Value: value}, nil
}
