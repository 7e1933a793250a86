// SPDX-License-Identifier: Apache-2.0

package coprocdtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"sync"
	"testing"
	"time"

	"hwvtpm/coproc/abi"
)

// Card is the card of a daemon: slots, and a key that signs.
type Card struct {
	key    *ecdsa.PrivateKey
	der    []byte
	serial [16]byte
	wg     sync.WaitGroup

	mu    sync.Mutex // guards what follows
	slots map[uint32]*Slot
	epoch uint64 // another for each life of the daemon
	next  uint32
	last  string // reason of the last adoption
	chain []byte // certificates that it was given
}

func newCard(t testing.TB) *Card {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return &Card{key: key, der: der, serial: abi.SerialOf(der), slots: map[uint32]*Slot{}}
}

// Add makes a slot.
func (c *Card) Add(name string, key [32]byte) *Slot {
	_, s := c.add(&abi.SlotCreate{Name: name, Keys: abi.DefaultKeys, Banks: abi.DefaultBanks, AccessKey: key})
	return s
}

// Slot gives the slot of this name, or nil.
func (c *Card) Slot(name string) *Slot {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.slots {
		if s.info.Name == name {
			return s
		}
	}
	return nil
}

// Certificates are those that the card was given.
func (c *Card) Certificates() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.chain
}

// Reason is that of the last adoption.
func (c *Card) Reason() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

func (c *Card) add(req *abi.SlotCreate) (abi.Status, *Slot) {
	if c.Slot(req.Name) != nil {
		return abi.StatusExists, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &Slot{wg: &c.wg, info: abi.SlotInfo{
		Number: c.next, Name: req.Name, Keys: req.Keys, Banks: req.Banks, AccessKey: req.AccessKey,
		Generation: 1, Epoch: 1, Created: time.Now().Unix(),
	}}
	rand.Read(s.info.ID[:])
	s.info.EKNames = abi.EKDigest(s.eks())
	c.slots[c.next] = s
	c.next++
	return abi.StatusOK, s
}

// begin begins an epoch.
func (c *Card) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
}

// dropAll ends the channels of all slots.
func (c *Card) dropAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.slots {
		s.Drop()
	}
}

func (c *Card) close() {
	c.dropAll()
	c.wg.Wait()
}

// byNumber gives the slot of this number, or nil.
func (c *Card) byNumber(n uint32) *Slot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.slots[n]
}

// list gives a page of the slots.
func (c *Card) list(from uint32) (page []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := from; n < c.next && len(page) < abi.MaxListed*abi.SlotInfoSize; n++ {
		if s := c.slots[n]; s != nil {
			info := s.Info()
			page = abi.AppendSlotInfo(page, &info)
		}
	}
	return page
}

func (c *Card) health() abi.CardHealth {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := abi.CardHealth{Slots: uint32(len(c.slots)), Epoch: c.epoch, EngineVersion: 0x902, Uptime: 7}
	for _, s := range c.slots {
		switch s.Info().Life {
		case abi.LifeLive:
			h.Live++
		case abi.LifeLocked:
			h.Locked++
		}
	}
	return h
}

// Serial is the card's serial number.
func (c *Card) Serial() [16]byte { return c.serial }

// Sign signs a statement as it is.
func (c *Card) Sign(st *abi.Statement) []byte {
	signed := abi.AppendStatement(nil, st)
	digest := sha256.Sum256(signed)
	sig, err := ecdsa.SignASN1(rand.Reader, c.key, digest[:])
	if err != nil {
		panic(err) // the system has no random numbers
	}
	return abi.AppendSignature(signed, sig)
}

// statement makes a statement of now.
func (c *Card) statement(kind abi.StatementType, slot [16]byte, nonce [32]byte, body []byte) []byte {
	return c.Sign(&abi.Statement{
		Type: kind, Time: time.Now().Unix(), Serial: c.serial, Slot: slot, Nonce: nonce, Body: body,
	})
}

// Remove forgets a slot, open or not.
func (c *Card) Remove(number uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.slots, number)
}
