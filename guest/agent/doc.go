// SPDX-License-Identifier: Apache-2.0

// Package agent is the channel between a test on the host and the program
// vtpm-agent inside a virtual machine.
//
// # Wire
//
// The channel is a serial port in the guest (raw mode) and a UNIX socket on the
// host. Each message is one JSON object on a line of at most [MaxLine] bytes:
//
//	guest -> host  {"hello":{...}}                                   at boot, and on request
//	host -> guest  {"session":"..","id":7,"op":"run","args":{...}}
//	guest -> host  {"session":"..","id":7,"result":{...}}            or "error":"..."
//
// A serial port has no notion of a connection: bytes may be lost or cut at any
// point when the guest resets. So each side skips what it cannot parse, a
// message starts on a fresh line, and session names one run of the agent: a
// request left over in the port from before a reset is not executed by the
// agent that comes up afterwards.
//
// # Trust
//
// The guest is under test, so the host bounds and checks what it reads and never
// fails on a line it does not understand. The agent does whatever the host asks
// and so belongs in test machines only.
package agent
