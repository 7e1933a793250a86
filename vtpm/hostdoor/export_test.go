// SPDX-License-Identifier: Apache-2.0

package hostdoor

// Patience is how long a daemon that is away is waited for.
const Patience = patience
