// SPDX-License-Identifier: Apache-2.0

// Package door is the host's door: the protocol by which a machine's guest, the
// machine's backend and the host's operator ask the host's daemon for what it
// knows of TPMs.
//
// # Messages
//
// A message is one line of JSON, with a line feed before and after it:
//
//	LF {"id":"8f..","op":"evidence","body":{..}} LF      request
//	LF {"id":"8f..","result":{..}} LF                    answer
//	LF {"id":"8f..","code":"denied","error":"text"} LF   answer of one that failed
//
// The id is the asker's: 1 to 64 letters, digits, '-' or '_', and random, so that an
// answer fits one request only. Requests have MaxRequest bytes at most, answers
// MaxAnswer. A channel has one request under way; what is sent meanwhile waits. Who
// closes its side of a channel has gone: what it has asked for ends unanswered.
//
// # A channel that knows no connections
//
// A virtio-serial port is a pipe: if the machine is reset, what was under way is
// cut anywhere, and the next asker finds the rest. The two line feeds are for that.
// Half a message ends where the next begins, and no true part of a message is one
// itself. So readers skip lines that are no message, lines that are too long, and
// answers to what others asked; and are in step again with the next line.
//
// # Who is believed
//
// Both sides may be hostile. A reader keeps a bounded number of bytes in memory. There
// are no time limits here: a context that ends closes the channel, and whose
// patience ends sooner puts a deadline on the connection. What an operation means,
// and who may ask for it, is for the Handler to say, that is told whom the channel
// belongs to.
//
// The package has the standard library only, and no HTTP; the same
// operations over HTTPS are in doorhttp, and vsock has the sockets.
package door
