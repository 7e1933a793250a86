// SPDX-License-Identifier: Apache-2.0

// Package cli is what the programs of this module share: how they read their command
// lines and end, which version they are, and how they speak to a service manager.
package cli
