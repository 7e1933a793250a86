// SPDX-License-Identifier: Apache-2.0

// Package card is the firmware of a card with many slots, behind whatever face it
// shows: it has the sealed store, lets clients in, and gives each slot that is in
// use a worker.
//
//	session --- admin opcodes ---> Card --- supervisor channel --- worker
//	                                |  (package wire)              |
//	                              store                            |
//	client ----------------- data and control sockets -------------+
//
// The card is not on the way of a slot's commands. It is asked when a state has to
// be made durable, and when a slot is opened, parked, and brought back.
//
// # What a slot may do to others
//
// Nothing. A worker has one slot's key and no file; what it says is checked; and
// what takes its time, disk or worker, is waited for by that slot's own goroutine,
// with no lock held that another slot needs. The one thing that all slots share is
// room: see Config.MaxLive.
//
// # Locks
//
// Card.mu guards which slots there are, slot.mu what one slot does. Neither is
// held while the other is taken, nor over disk or worker. The store orders
// changes of its table by itself.
package card
