// SPDX-License-Identifier: Apache-2.0

package ekcert

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"

	"hwvtpm/coproc/abi"
)

// Kind is what the subject of a certificate is.
type Kind string

// The subjects of the certificates of the chain, as their URNs say them.
const (
	KindHost        Kind = "host"
	KindVM          Kind = "vm"
	KindCoprocessor Kind = "coprocessor"
)

// ValidName says whether a name can stand for a host, machine or card: the rule
// is that of slot names.
func ValidName(name string) bool { return abi.ValidName(name) }

const urnPrefix = "urn:hwvtpm:"

// URN is the subject's name as a URI of its certificate's SAN. The error is
// ErrName.
func URN(kind Kind, name string) (*url.URL, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("%w: %q", ErrName, name)
	}
	return url.Parse(urnPrefix + string(kind) + ":" + name)
}

// Subject is the one name of a kind that a certificate's SAN has. The error is
// ErrProfile.
func Subject(cert *x509.Certificate, kind Kind) (string, error) {
	found := ""
	for _, u := range cert.URIs {
		name, ours := strings.CutPrefix(u.String(), urnPrefix+string(kind)+":")
		switch {
		case !ours:
			return "", fmt.Errorf("%w: it names %s", ErrProfile, u)
		case found != "" || !ValidName(name):
			return "", fmt.Errorf("%w: it has no clear name of a %s", ErrProfile, kind)
		}
		found = name
	}
	if found == "" {
		return "", fmt.Errorf("%w: it names no %s", ErrProfile, kind)
	}
	return found, nil
}
