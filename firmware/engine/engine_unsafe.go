// SPDX-License-Identifier: Apache-2.0

package engine

/*
#cgo LDFLAGS: -ltpms
#cgo CFLAGS: -O2 -Wall
#include <libtpms/tpm_library.h>
#include "shim.h"

// The calls below keep no Go pointer after they return and call no Go code.
#cgo noescape hwvtpm_process
#cgo nocallback hwvtpm_process
#cgo noescape hwvtpm_volatile
#cgo nocallback hwvtpm_volatile
#cgo noescape hwvtpm_take_stored
#cgo nocallback hwvtpm_take_stored
#cgo noescape hwvtpm_hash
#cgo nocallback hwvtpm_hash
#cgo noescape hwvtpm_load
#cgo nocallback hwvtpm_load
*/
import "C"

import "unsafe"

// ptr gives C the start of b, or NULL for an empty slice.
func ptr(b []byte) *C.uint8_t {
	// SAFETY: SliceData of a byte slice points to len(b) bytes without Go
	// pointers in them; cgo pins the memory for the call, every caller
	// passes len(b) beside it, and C does not keep the pointer.
	return (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(b)))
}

func cSetup() uint32       { return uint32(C.hwvtpm_setup()) }
func cVersion() uint32     { return uint32(C.TPMLIB_GetVersion()) }
func cManufacture() uint32 { return uint32(C.hwvtpm_manufacture()) }
func cStop()               { C.hwvtpm_stop() }
func cCancel()             { C.hwvtpm_cancel() }

func cLoad(perm, vol []byte) uint32 {
	return uint32(C.hwvtpm_load(ptr(perm), C.uint32_t(len(perm)), ptr(vol), C.uint32_t(len(vol))))
}

func cProcess(locality uint8, cmd, resp []byte) (rc uint32, n int, stored bool) {
	var res C.struct_hwvtpm_result
	C.hwvtpm_process(&res, C.uint8_t(locality), ptr(cmd), C.uint32_t(len(cmd)), ptr(resp), C.uint32_t(len(resp)))
	return uint32(res.rc), int(res.len), res.stored != 0
}

func cHash(data []byte) uint32 {
	return uint32(C.hwvtpm_hash(ptr(data), C.uint32_t(len(data))))
}

func cStoredLen() int { return int(C.hwvtpm_stored_len()) }

// cTakeStored moves the stored blob to dst, whose length is cStoredLen.
func cTakeStored(dst []byte) { C.hwvtpm_take_stored(ptr(dst)) }

func cVolatile(dst []byte) (rc uint32, n int) {
	var size C.uint32_t
	rc = uint32(C.hwvtpm_volatile(ptr(dst), C.uint32_t(len(dst)), &size))
	return rc, int(size)
}
