// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// memo remembers values by key: at least the newest or last asked for of so many, and
// at most twice as many. Its methods may be called from any goroutine.
type memo[K comparable, V any] struct {
	most int

	mu         sync.Mutex // guards what follows
	young, old map[K]V
}

func newMemo[K comparable, V any](most int) *memo[K, V] {
	return &memo[K, V]{most: most, young: map[K]V{}}
}

func (m *memo[K, V]) get(k K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, known := m.young[k]
	if known {
		return v, true
	}
	if v, known = m.old[k]; known {
		m.putLocked(k, v)
	}
	return v, known
}

func (m *memo[K, V]) put(k K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.putLocked(k, v)
}

// putLocked forgets what was not asked for since the young were last made the old.
func (m *memo[K, V]) putLocked(k K, v V) {
	if len(m.young) >= m.most {
		m.young, m.old = map[K]V{}, m.young
	}
	m.young[k] = v
}

// digest stands for what it is over, each part apart from the others.
type digest [sha256.Size]byte

func digestParts(parts ...[]byte) digest {
	h := sha256.New()
	var size [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write(p)
	}
	return digest(h.Sum(nil))
}
