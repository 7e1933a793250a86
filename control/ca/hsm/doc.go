// SPDX-License-Identifier: Apache-2.0

// Package hsm keeps an authority's keys in a PKCS#11 token: a hardware security
// module, or SoftHSM2 in tests. Keys are made in the token and can't be taken out.
//
// It needs cgo. Programs that are built without it have keys in files only.
package hsm
