// SPDX-License-Identifier: Apache-2.0

// Package engine is the TPM 2.0 inside a card: libtpms, called through cgo.
// It runs only in the worker process hwvtpm-engine; beside firmware/sandbox it is
// the only cgo of the project.
//
// libtpms is one TPM per process and not thread safe, so there is one
// [Engine] per process and one goroutine owns it. Only [Engine.Cancel] may be
// called beside it.
//
// The engine does not write files. When a command changes the TPM's permanent
// state libtpms calls a store callback; the callback (C, shim.c) keeps a copy
// which [Engine.Stored] hands out after the command. The caller makes it
// durable before it lets the response go.
//
// All saved state and every response is a secret in clear: it is wiped from
// libtpms' heap as soon as it is copied out.
package engine
