// SPDX-License-Identifier: Apache-2.0

// Package shares bounds how often each of many may have something that is scarce, so that
// who asks without end keeps nobody else from it. Who asks, is for the caller to say; for
// how many are under way at a time there is package places.
package shares
