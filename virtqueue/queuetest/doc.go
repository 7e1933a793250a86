// SPDX-License-Identifier: Apache-2.0

// Package queuetest is a fake VIRTIO driver: the guest's end of one virtqueue,
// for tests, benchmarks and fuzzing of devices built on package virtqueue.
//
// A [Driver] lays out a split or packed ring and a heap for buffers in one
// piece of memory, offers chains, and takes them back:
//
//	d := queuetest.NewDriver(queuetest.Options{Size: 8, EventIdx: true})
//	q, err := virtqueue.New(d.Memory(), d.Config())
//	tok, err := d.Add([][]byte{request}, []int{64}, false)
//	... device: q.Pop, ReadAt, WriteAt, q.Push ...
//	tok, written, reply, ok := d.Poll()
//
// The memory is allocated, or given by the caller with the addresses it has in
// the guest and in the front-end, so the same driver works against a device in
// this process and against one behind vhost-user.
//
// # A second opinion
//
// The driver is written from the specification and shares no ring code with
// package virtqueue. It tracks which chains the device holds, and [Driver.Err]
// tells when the device broke a rule: used an unknown chain, used one twice,
// or claimed more bytes than there was room for.
//
// # Hostile knobs
//
// The Put, Set and Offer methods write descriptors, indices, flags and event
// fields that no honest driver would. They bypass all bookkeeping; after
// [Driver.Offer] the device's used entry for that chain counts as unknown.
//
// # Goroutines
//
// A Driver belongs to one goroutine; the device may run in another, since all
// fields that publish something are accessed atomically.
package queuetest
