// SPDX-License-Identifier: Apache-2.0

// Package enginelog reads what an engine writes to its standard error: lines of a level
// (info, warn or error), a space and a message. The engine is in a guest's reach, so
// what it can make its parent hold and log is bounded.
package enginelog
