// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"sync/atomic"
	"unsafe"
)

// NewPage gives the status page in shared memory, which begins with it and stays
// mapped for as long as the page is used.
func NewPage(mem []byte) *Page {
	b := mem[:PageSize]
	// SAFETY: b has PageSize bytes, as many as the array, and begins a mapping,
	// which is page aligned. atomic.Uint64 has no pointers, and every bit
	// pattern is one of its values.
	return &Page{(*[pageWords]atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(b)))}
}
