// SPDX-License-Identifier: Apache-2.0

// Package places bounds how many requests of a server are under way, of all callers
// and of each: their bodies are in memory, and one who sends slowly, or much at once,
// must not keep the others out. Who a caller is, is for the server to say.
package places
