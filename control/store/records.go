// SPDX-License-Identifier: Apache-2.0

package store

import "time"

// The tables. A record's key is the member that its comment names first.
var (
	Hosts        = Table[Host]{"hosts"}
	VMs          = Table[VM]{"vms"}
	Owners       = Table[Owner]{"owners"}
	Certificates = Table[Certificate]{"certificates"}
	Challenges   = Table[Challenge]{"challenges"}
	Tokens       = Table[Token]{"tokens"}
	Allowed      = Table[Allow]{"allowed"}
	Denied       = Table[Deny]{"denied"}
	Pins         = Table[Pin]{"pins"}
	Lists        = Table[List]{"lists"}
)

// Kinds of what enrols.
const (
	KindHost = "host"
	KindVTPM = "vtpm"
)

// Host is a host with its TPM, by Name.
type Host struct {
	Name     string    `json:"name"`
	EK       string    `json:"ek"`     // SHA-256 of the EK's SubjectPublicKeyInfo, hexadecimal
	AK       string    `json:"ak"`     // the AIK's TPM Name, hexadecimal
	Serial   string    `json:"serial"` // of its newest AIK certificate
	Enrolled time.Time `json:"enrolled"`
	Renewed  time.Time `json:"renewed"`
}

// VM is a virtual machine with its vTPM, by ID.
type VM struct {
	ID          string    `json:"id"`
	EK          string    `json:"ek"`
	AK          string    `json:"ak"`
	Serial      string    `json:"serial"`
	Host        string    `json:"host"`        // where its EK certificate was made
	Coprocessor string    `json:"coprocessor"` // the card that made it
	Enrolled    time.Time `json:"enrolled"`
	Renewed     time.Time `json:"renewed"`
}

// Owner is the machine that enrolled with an endorsement key last, by EK. It is so still
// if that machine's record has this EK.
type Owner struct {
	EK string `json:"ek"`
	VM string `json:"vm"`
}

// Certificate is one that was issued, by Serial.
type Certificate struct {
	Serial    string      `json:"serial"`  // hexadecimal
	Issuer    string      `json:"issuer"`  // attestation or service
	Profile   string      `json:"profile"` // host-aik, vtpm-aik, tls-client
	Subject   string      `json:"subject"` // host or machine
	NotBefore time.Time   `json:"not-before"`
	NotAfter  time.Time   `json:"not-after"`
	DER       []byte      `json:"der"`
	Revoked   *Revocation `json:"revoked,omitempty"`
}

// Revocation is when and why a certificate was revoked.
type Revocation struct {
	Time   time.Time `json:"time"`
	Reason int       `json:"reason"` // RFC 5280, 5.3.1
}

// Challenge is an enrolment that waits for its secret, by ID. It has the
// secret's digest only.
type Challenge struct {
	ID          string    `json:"id"`
	Kind        string    `json:"kind"`
	Name        string    `json:"name"`
	EK          string    `json:"ek"`
	AK          string    `json:"ak"`
	AKKey       []byte    `json:"ak-key"`            // SubjectPublicKeyInfo
	TLSKey      []byte    `json:"tls-key,omitempty"` // SubjectPublicKeyInfo
	Secret      []byte    `json:"secret"`            // SHA-256
	Expires     time.Time `json:"expires"`
	Host        string    `json:"host,omitempty"` // of a vTPM's EK chain
	HostSerial  string    `json:"host-serial,omitempty"`
	Coprocessor string    `json:"coprocessor,omitempty"`
	CardKey     string    `json:"card-key,omitempty"` // as EK
	Token       string    `json:"token,omitempty"`    // its key, if the caller had one
	Caller      string    `json:"caller,omitempty"`   // host that asks, by its TLS key
	From        string    `json:"from,omitempty"`     // whose share of those that wait it has
}

// Token lets its bearer enrol, by Hash. The token itself is nowhere.
type Token struct {
	Hash    string    `json:"hash"` // SHA-256 of the token, hexadecimal
	Kind    string    `json:"kind"`
	Name    string    `json:"name"`
	Reuse   bool      `json:"reuse"` // until it expires, rather than once
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// Allow lets a TPM enrol under a name without a token, by EK.
type Allow struct {
	EK   string `json:"ek"`
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// Deny keeps a key of a TPM or card out, whoever vouches for it, by Key.
type Deny struct {
	Key    string    `json:"key"` // SHA-256 of the SubjectPublicKeyInfo, hexadecimal
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

// Pin lets the holder of a TLS key speak as a host, by Key.
type Pin struct {
	Key  string `json:"key"` // SHA-256 of the SubjectPublicKeyInfo, hexadecimal
	Host string `json:"host"`
}

// List is an issuer's newest revocation list, by Issuer.
type List struct {
	Issuer     string    `json:"issuer"`
	Number     uint64    `json:"number"`
	NextUpdate time.Time `json:"next-update"`
	DER        []byte    `json:"der"`
}
