// SPDX-License-Identifier: Apache-2.0

package provision

import (
	"encoding/hex"

	"hwvtpm/coproc/abi"
)

// Algorithms and curves of Part 2, 6.3 and 6.4.
const (
	algRSA    = 0x0001
	algAES    = 0x0006
	algSHA256 = 0x000b
	algSHA384 = 0x000c
	algNull   = 0x0010
	algECC    = 0x0023
	algCFB    = 0x0043

	curveP256 = 0x0003
	curveP384 = 0x0004
)

// Attributes of a key (Part 2, 8.3, TPMA_OBJECT).
const (
	fixedTPM            = 1 << 1
	fixedParent         = 1 << 4
	sensitiveDataOrigin = 1 << 5
	userWithAuth        = 1 << 6
	adminWithPolicy     = 1 << 7
	noDA                = 1 << 10
	restricted          = 1 << 16
	decrypt             = 1 << 17

	storage = fixedTPM | fixedParent | sensitiveDataOrigin | restricted | decrypt
)

// The policies of endorsement keys (EK Credential Profile, annex B, "Computing
// PolicyA" and "Computing PolicyB"): PolicyA is TPM2_PolicySecret of the
// endorsement hierarchy; PolicyB is that, or what an NV index of the owner's says
// (PolicyC). A test computes them.
var (
	policyASHA256 = digest("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
	policyBSHA384 = digest("b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419ca" +
		"cb47ba09699646150f9fc000f3f80e12")
)

func digest(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err) // a constant of this file
	}
	return b
}

// key is one that may be provisioned.
type key struct {
	flag      abi.Keys
	name      string
	hierarchy uint32
	handle    uint32 // persistent
	public    []byte // TPMT_PUBLIC that it is made from
}

// isEK tells endorsement keys from the rest.
func (k *key) isEK() bool { return k.hierarchy == rhEndorsement }

// catalog is every key there is, in the order of making. The low-range templates
// and the storage root key have a unique field of zeros as long as the real one,
// the high-range ones have none: it takes part in the derivation of the key.
var catalog = []key{
	{
		abi.KeyRSAEK, "RSA-2048 endorsement key (L-1)", rhEndorsement, 0x81010001,
		rsaPublic(storage|adminWithPolicy, policyASHA256),
	},
	{
		abi.KeyP256EK, "ECC P-256 endorsement key (L-2)", rhEndorsement, 0x8101000a,
		eccPublic(algSHA256, storage|adminWithPolicy, policyASHA256, 128, curveP256, 32),
	},
	{
		abi.KeyP384EK, "ECC P-384 endorsement key (H-3)", rhEndorsement, 0x81010016,
		eccPublic(algSHA384, storage|userWithAuth|adminWithPolicy, policyBSHA384, 256, curveP384, 0),
	},
	{
		abi.KeySRK, "RSA-2048 storage root key", rhOwner, 0x81000001,
		rsaPublic(storage|userWithAuth|noDA, nil),
	},
}

// publicHead starts a TPMT_PUBLIC of a storage key (Part 2, 12.2.4):
//
//	 0      2         4             8             10
//	+------+---------+-------------+-------------+---------+-----+------+-----+--------+
//	| type | nameAlg | attributes  | policy size | policy  | AES | bits | CFB | scheme |
//	+------+---------+-------------+-------------+---------+-----+------+-----+--------+
//
// The scheme is TPM_ALG_NULL, as restricted decryption keys have it.
func publicHead(alg, nameAlg uint16, attributes uint32, policy []byte, aesBits uint16) []byte {
	b := be.AppendUint16(nil, alg)
	b = be.AppendUint16(b, nameAlg)
	b = be.AppendUint32(b, attributes)
	b = sized(b, policy)
	b = be.AppendUint16(b, algAES)
	b = be.AppendUint16(b, aesBits)
	b = be.AppendUint16(b, algCFB)
	return be.AppendUint16(b, algNull)
}

// rsaPublic is the template of an RSA-2048 key with the default exponent.
func rsaPublic(attributes uint32, policy []byte) []byte {
	const bits = 2048
	b := publicHead(algRSA, algSHA256, attributes, policy, 128)
	b = be.AppendUint16(b, bits)
	b = be.AppendUint32(b, 0) // 65537
	return sized(b, make([]byte, bits/8))
}

// eccPublic is the template of an ECC key; unique is the size of each of the two
// coordinates in its unique field.
func eccPublic(nameAlg uint16, attributes uint32, policy []byte, aesBits, curve uint16, unique int) []byte {
	b := publicHead(algECC, nameAlg, attributes, policy, aesBits)
	b = be.AppendUint16(b, curve)
	b = be.AppendUint16(b, algNull) // key derivation scheme
	b = sized(b, make([]byte, unique))
	return sized(b, make([]byte, unique))
}

// sized appends a TPM2B: the length of data in two bytes, and data.
func sized(b, data []byte) []byte {
	return append(be.AppendUint16(b, uint16(len(data))), data...)
}
