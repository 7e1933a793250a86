// SPDX-License-Identifier: Apache-2.0

// Package virtqueue is the device side of VIRTIO 1.3 virtqueues: split rings
// (2.7) and packed rings (2.8), both with indirect descriptors, EVENT_IDX
// notification suppression and the dirty page log of a live migration.
//
// It knows rings and guest memory, and nothing of how either reached this
// process: a transport (vhost-user, in this module) builds a [Memory] from the
// front-end's memory table, a [Queue] from the ring addresses, and waits for
// kicks and sends calls by itself.
//
// # A request's life
//
//	driver                         device (this package)
//	------                         ---------------------
//	writes buffers, descriptors
//	publishes the chain ---------> Pop      descriptors copied once, checked
//	kicks, if asked to             ReadAt   device-readable bytes, copied out
//	                               WriteAt  device-writable bytes, copied in
//	reuses the buffers  <--------- Push     used entry published
//	                    <- call -- NeedCall did the driver ask for one?
//
// When Pop reports an empty queue the device calls [Queue.EnableKick], pops
// again if that says so, and only then sleeps.
//
// # Trust
//
// Whatever lies in guest memory is hostile and may change at any moment. A
// descriptor is read exactly once, into a copy that belongs to the [Chain];
// only the copy is checked and only the copy is used. Guest addresses are
// translated, with bounds checks, again at each ReadAt and WriteAt. A ring that
// breaks a rule stops with a [RingError]; it never panics, never touches bytes
// outside the [Region]s, and every walk ends after at most Queue Size
// descriptors.
//
// # Memory ordering
//
// The rings publish 16-bit fields; Go has atomics of 32 bits and more. Every
// field that orders other memory accesses is therefore loaded as the aligned
// 32-bit word around it, and stored as that word where the device owns all of
// it. sync/atomic is sequentially consistent, so a load acquires, a store
// releases, and a store is ordered before a later load: the fence that
// EVENT_IDX needs between publishing an index and looking at the other side's
// event field.
//
//	word                               written by   device does
//	split  avail {flags, idx}          driver       load
//	split  avail ring[i], used_event   driver       load
//	split  used {flags, idx}           device       store
//	split  used avail_event | any      device|any   atomic AND, OR of its half
//	packed descriptor {id, flags}      in turns     load; store when used
//	packed driver event {off, flags}   driver       load
//	packed device event {off, flags}   device       store
//
// # Goroutines
//
// A [Memory] is immutable and a [DirtyLog] atomic: any goroutine may use them.
// A [Queue] and its chains belong to one goroutine at a time. Nothing here
// allocates per request once a Chain has grown to the longest chain it met.
package virtqueue
