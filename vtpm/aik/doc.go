// SPDX-License-Identifier: Apache-2.0

// Package aik has the attestation key (AIK) of a host in the host's hardware TPM, or
// of a virtual machine in its virtual one: it is made here, shown to be there to who
// certifies it (package control/enrol), and used to sign certificates and quotes.
//
// # What is kept where
//
// Nothing is made persistent in the TPM. The key's blobs are in a file of the
// caller's folder, and are of use in this TPM only; the storage key above them is the
// TCG's ECC P-256 template in the owner hierarchy, made when it is needed. Between
// operations nothing of ours is loaded: what an operation begins with is the key's
// saved context, which costs no public-key operation to load.
//
// # Others at the TPM
//
// Operations take turns. Whatever one leaves loaded, because it failed half way, is
// flushed at its end, or, if the TPM cannot be reached then, before the next one. With
// /dev/tpmrm0 the kernel keeps programs apart. A TPM without a resource manager has
// room for as few as three objects: no operation here has more than two at a time, and a
// connection that keeps others out is given up after each (see package tpmlink).
// An answer that is lost on its way can leave one object behind there.
//
// # The bus
//
// Who listens between processor and TPM must not see what a credential holds: it
// crosses in a session that is salted with the endorsement key, whose public part is
// held against its certificate (TPM 2.0 Part 1, "Session-Based Encryption"). The
// hierarchies' authorization values never cross.
package aik
