// SPDX-License-Identifier: Apache-2.0

package ekcert

import "encoding/asn1"

// Object identifiers of the TCG, from "EK Credential Profile for TPM Family 2.0",
// 3.1.1 and annex A, and of RFC 5280.
var (
	OIDEKCertificate  = asn1.ObjectIdentifier{2, 23, 133, 8, 1} // tcg-kp-EKCertificate
	OIDAIKCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 3} // tcg-kp-AIKCertificate

	// OIDSubjectAltName is critical in EK certificates, and crypto/x509 can't
	// read all of it there.
	OIDSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

	oidTPMManufacturer  = asn1.ObjectIdentifier{2, 23, 133, 2, 1}
	oidTPMModel         = asn1.ObjectIdentifier{2, 23, 133, 2, 2}
	oidTPMVersion       = asn1.ObjectIdentifier{2, 23, 133, 2, 3}
	oidTPMSpecification = asn1.ObjectIdentifier{2, 23, 133, 2, 16}

	oidSubjectDirectoryAttributes = asn1.ObjectIdentifier{2, 5, 29, 9}
)
