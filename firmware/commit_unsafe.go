// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"sync/atomic"
	"unsafe"
)

// word gives the commit word's place in the mapping.
func (v *volatileFile) word() *uint64 {
	b := v.mem[commitOffset : commitOffset+8]
	// SAFETY: b is 8 bytes of a live mapping, commitOffset is a multiple of
	// 8 and mappings are page aligned, so the pointer is aligned and in
	// bounds; no caller keeps it over close. An atomic store is one store
	// instruction, and the compiler moves no other store across it.
	return (*uint64)(unsafe.Pointer(&b[0]))
}

func (v *volatileFile) commit(c commitWord) { atomic.StoreUint64(v.word(), c.pack()) }

// erase makes no checkpoint count: zero is no commit word.
func (v *volatileFile) erase() { atomic.StoreUint64(v.word(), 0) }

func (v *volatileFile) committed() (commitWord, error) {
	return unpackCommit(atomic.LoadUint64(v.word()))
}
