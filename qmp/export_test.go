// SPDX-License-Identifier: Apache-2.0

package qmp

import "time"

// WithUnplugRetry lets tests of a lost request not wait for the next one.
func WithUnplugRetry(d time.Duration) Option {
	return func(c *Client) { c.unplugRetry = d }
}
