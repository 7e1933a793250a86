// SPDX-License-Identifier: Apache-2.0

package qmp

import "fmt"

// dispatch hands one line to whoever waits for it. It never blocks.
// Preconditions: c.receiveMu is held.
func (c *Client) dispatch(line []byte) error {
	m, err := parseMessage(line)
	if err != nil {
		return err
	}
	switch {
	case m.Greeting != nil:
		return c.dispatchGreeting(m.Greeting)
	case !c.greeted():
		return fmt.Errorf("%w: no greeting but %s", ErrProtocol, excerpt(line))
	case m.Event != nil:
		return c.dispatchEvent(m, len(line))
	default:
		return c.dispatchReply(m)
	}
}

func (c *Client) dispatchGreeting(g *Greeting) error {
	if c.greeted() {
		return fmt.Errorf("%w: second greeting", ErrProtocol)
	}
	c.greeting = *g
	close(c.greetingDone)
	return nil
}

// greeted says whether the greeting has arrived.
func (c *Client) greeted() bool {
	select {
	case <-c.greetingDone:
		return true
	default:
		return false
	}
}

func (c *Client) dispatchEvent(m *message, size int) error {
	e, err := m.event()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.subs {
		s.offer(e, size)
	}
	return nil
}

// dispatchReply gives a reply to its command. A reply nobody waits for is
// dropped: its command was given up, or it is a duplicate or an invention.
func (c *Client) dispatchReply(m *message) error {
	id, ok, err := m.commandID()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	waiter := c.pending[id]
	if !ok || id >= c.nextID {
		c.strangerOnce.Do(func() {
			c.log.Warn("qmp: reply to a command that was never sent", "id", excerpt(m.ID))
		})
		return nil
	}
	if waiter != nil {
		delete(c.pending, id)
		waiter <- m // has room for one, and the entry is gone now
	}
	return nil
}
