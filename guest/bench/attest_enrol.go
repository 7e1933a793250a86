// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"time"

	"hwvtpm/guest/attester"
	"hwvtpm/guest/attester/atcontrol"
)

// enrolSeries collects one row.
type enrolSeries struct {
	key, enrol, both []time.Duration // of the round
	all              [3]series
}

func (s *enrolSeries) add(key, enrol time.Duration, err error) error {
	if err == nil {
		s.key, s.enrol, s.both = append(s.key, key), append(s.enrol, enrol), append(s.both, key+enrol)
	}
	return err
}

// round ends a round.
func (s *enrolSeries) round() {
	for i, samples := range [][]time.Duration{s.key, s.enrol, s.both} {
		s.all[i].add(samples)
	}
	s.key, s.enrol, s.both = nil, nil, nil
}

func (s *enrolSeries) row(what string) EnrolRow {
	return EnrolRow{What: what, Key: s.all[0].dist(), Enrol: s.all[1].dist(), Both: s.all[2].dist()}
}

// The ways to enrol, in the order of a round: the last is the one whose key stays.
const (
	peerOnSlot = iota
	peerOnSwtpm
	oursDirect
	oursByDoor
	enrolWays
)

var enrolNames = [enrolWays]string{
	peerOnSlot: "go-attestation, slot, no server", peerOnSwtpm: "go-attestation, swtpm, no server",
	oursDirect: "hwvtpm, slot, vtpm-control directly", oursByDoor: "hwvtpm, slot, through vtpm-hostd",
}

// measureEnrol has each machine enrol in all ways once a round.
func measureEnrol(ctx context.Context, c *cloud) ([]EnrolRow, error) {
	swtpm, err := openPeer(c.peer)
	if err != nil {
		return nil, err
	}
	slots, tokens := make([]*peer, len(c.machines)), make([]string, len(c.machines))
	for i, m := range c.machines {
		if slots[i], err = openPeer(m.slot); err != nil {
			return nil, err
		}
		if tokens[i], err = c.control.run(ctx, "token", "vtpm", m.name, "--reuse"); err != nil {
			return nil, err
		}
	}
	var ways [enrolWays]enrolSeries
	for range c.plan.AttestRounds {
		for i, m := range c.machines {
			for n, once := range [enrolWays]func() (key, enrol time.Duration, err error){
				peerOnSlot: slots[i].once, peerOnSwtpm: swtpm.once,
				oursDirect: func() (key, enrol time.Duration, err error) {
					return m.enrol(ctx, atcontrol.New(c.control.client), tokens[i])
				},
				oursByDoor: func() (key, enrol time.Duration, err error) { return m.enrol(ctx, attester.AtDoor(m.door), "") },
			} {
				if err := ways[n].add(once()); err != nil {
					return nil, err
				}
			}
		}
		for n := range ways {
			ways[n].round()
		}
	}
	return enrolRows(&ways), nil
}

// enrolRows puts ours first. What it is held against is the peer on the same TPM.
func enrolRows(ways *[enrolWays]enrolSeries) []EnrolRow {
	base := ways[peerOnSlot].all[2]
	var rows []EnrolRow
	for _, n := range []int{oursByDoor, oursDirect, peerOnSlot, peerOnSwtpm} {
		row := ways[n].row(enrolNames[n])
		row.Ratio = ratio(row.Both.P50, base.dist().P50)
		rows = append(rows, row)
	}
	return rows
}
