// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"hwvtpm/control/store"
)

// TokenHash is a token's key in the store. Tokens are 256 random bits: nothing
// slower than one hash is needed to keep them from being guessed.
func TokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func deniedf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDenied, fmt.Errorf(format, args...))
}

// authorise judges who may have what they claim. It is asked before a challenge is
// made and again, in the transaction that certifies, after it was met.
func authorise(tx store.Tx, c *store.Challenge, now time.Time) error {
	if err := checkKeys(tx, c); err != nil {
		return err
	}
	if err := checkPlace(tx, c, now); err != nil {
		return err
	}
	if c.Token != "" {
		return checkToken(tx, c, now)
	}
	had, err := enrolled(tx, c)
	if err != nil {
		return err
	}
	// A host vouches for the machines on it, as by their EK certificates. But every
	// host can make one in any name: it can't take the name of a TPM that is there.
	if c.Caller != "" && c.Kind == store.KindVTPM && c.Caller == c.Host && (had.EK == "" || had.EK == c.EK) {
		return nil
	}
	if a, err := store.Allowed.Get(tx, c.EK); err == nil && a.Kind == c.Kind && a.Name == c.Name {
		return nil
	} else if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if had.EK == c.EK && had.AK == c.AK {
		return checkRenewal(tx, had)
	}
	return deniedf("no token, and nothing allows this TPM as %s %s", c.Kind, c.Name)
}

// checkKeys refuses keys that an operator keeps out.
func checkKeys(tx store.Tx, c *store.Challenge) error {
	for _, key := range []string{c.EK, KeyHash(c.AKKey), c.CardKey} {
		if key == "" {
			continue
		}
		d, err := store.Denied.Get(tx, key)
		if err == nil {
			return deniedf("key %s is kept out: %s", key, d.Reason)
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

// checkOwner refuses a vTPM that another machine has: a copy of a TPM, or an endorsement
// key that was certified in two names, would let one machine speak for the other.
func checkOwner(tx store.Tx, c *store.Challenge) error {
	o, err := store.Owners.Get(tx, c.EK)
	if err != nil || o.VM == c.Name {
		return notFoundIsFine(err)
	}
	v, err := store.VMs.Get(tx, o.VM)
	if err != nil {
		return notFoundIsFine(err)
	}
	if v.EK == c.EK {
		return deniedf("this TPM is that of machine %s", o.VM)
	}
	return nil
}

// checkPlace refuses a vTPM whose host's certificate was taken back or isn't ours, and
// a TPM that has another name already.
func checkPlace(tx store.Tx, c *store.Challenge, now time.Time) error {
	if c.Kind == store.KindVTPM {
		if err := checkOwner(tx, c); err != nil {
			return err
		}
		cert, err := store.Certificates.Get(tx, c.HostSerial)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return deniedf("the certificate of host %s is not in the records", c.Host)
		case err != nil:
			return err
		case cert.Revoked != nil || now.After(cert.NotAfter):
			return deniedf("the certificate of host %s was revoked or has ended", c.Host)
		}
		return nil
	}
	hosts, err := store.Hosts.All(tx)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if h.EK == c.EK && h.Name != c.Name {
			return deniedf("this TPM is that of host %s", h.Name)
		}
	}
	return nil
}

func checkToken(tx store.Tx, c *store.Challenge, now time.Time) error {
	t, err := store.Tokens.Get(tx, c.Token)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return deniedf("the token is not known, or was used")
	case err != nil:
		return err
	case now.After(t.Expires):
		return deniedf("the token has ended")
	case t.Kind != c.Kind || t.Name != c.Name:
		return deniedf("the token is not for %s %s", c.Kind, c.Name)
	}
	return nil
}

// checkRenewal lets the same key in the same TPM go on, unless its newest
// certificate was taken back.
func checkRenewal(tx store.Tx, had store.Host) error {
	cert, err := store.Certificates.Get(tx, had.Serial)
	if err != nil {
		return err
	}
	if cert.Revoked != nil {
		return deniedf("the certificate to renew was revoked")
	}
	return nil
}

// enrolled gives what a name has now, as for a host, or nothing.
func enrolled(tx store.Tx, c *store.Challenge) (store.Host, error) {
	if c.Kind == store.KindHost {
		h, err := store.Hosts.Get(tx, c.Name)
		return h, notFoundIsFine(err)
	}
	v, err := store.VMs.Get(tx, c.Name)
	return store.Host{Name: v.ID, EK: v.EK, AK: v.AK, Serial: v.Serial}, notFoundIsFine(err)
}

func notFoundIsFine(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
