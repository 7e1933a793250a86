// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/user"
	"strconv"
)

// addID adds a user or group, given by number or by name.
func addID(ids *[]uint32, s string, lookup func(name string) (string, error)) error {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		text, lerr := lookup(s)
		if lerr != nil {
			return lerr
		}
		if n, err = strconv.ParseUint(text, 10, 32); err != nil {
			return fmt.Errorf("%q has id %q", s, text)
		}
	}
	*ids = append(*ids, uint32(n))
	return nil
}

func userID(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func groupID(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}
