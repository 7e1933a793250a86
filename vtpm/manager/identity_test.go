// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hwvtpm/vtpm/bootevidence/bootevidencetest"
	"hwvtpm/vtpm/door"
)

// TestRenewal: at half of its life the certificate is replaced, for the same keys, and
// by the authority's records: the token is not shown again. The card gets the new one.
func TestRenewal(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.cfg.Poll = time.Hour
		r.start()
		first := r.m.Status()
		tls := spki(r, r.m.key.Public())
		r.pass(hostLife/2 - time.Hour)
		if st := r.m.Status(); st.AIK != first.AIK {
			r.Errorf("renewed before half of its life: %+v", st.AIK)
		}
		r.pass(2 * time.Hour)
		st := r.m.Status()
		if st.AIK.Serial == first.AIK.Serial || st.AIK.Key != first.AIK.Key || !st.AIK.Ends.After(first.AIK.Ends) {
			r.Errorf("certificate %+v after half of the life of %+v", st.AIK, first.AIK)
		}
		if st.CardAIK.Key != first.CardAIK.Key || !st.CardAIK.Ends.After(first.CardAIK.Ends) || r.card.given != 2 {
			r.Errorf("certificate of the card %+v, before %+v; given %d times", st.CardAIK, first.CardAIK, r.card.given)
		}
		if now := r.m.identity().tls.Leaf.RawSubjectPublicKeyInfo; !slices.Equal(now, tls) {
			r.Error("the key of TLS is another one")
		}
		if _, tokens := r.authority.count(KindHost); len(tokens) != 1 {
			r.Errorf("tokens shown: %q", tokens)
		}
		r.problems()
	})
}

// TestOffline: a host that was enrolled needs no authority until its certificate ends,
// also after a restart; and then it says so, until the authority is back.
func TestOffline(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.cfg.Poll = time.Hour
		r.start()
		a := r.newMachine("vm-a", 0x10)
		first := r.m.Status()
		r.authority.set(func(f *fakeAuthority) { f.err = errTest })
		r.again()
		if st := r.m.Status(); st.AIK != first.AIK {
			r.Errorf("certificate %+v after a restart, before %+v", st.AIK, first.AIK)
		}
		r.problems()
		ev, err := r.ask("vm-a", request(r, nonce, a.layer(r, nonce)))
		if err != nil {
			r.Fatal(err)
		}
		r.holds(ev)
		r.pass(hostLife * 3 / 4)
		r.problems("test failure")
		r.pass(hostLife / 2)
		r.problems("has ended", "test failure")
		r.authority.set(func(f *fakeAuthority) { f.err = nil })
		r.pass(r.m.cfg.RetryMost + time.Second)
		r.problems()
	})
}

// TestFullDisk: a host whose certificates cannot be kept works with them, says so, and asks
// the authority for no more of them; they are kept as soon as they can be.
func TestFullDisk(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		inTheWay := filepath.Join(r.cfg.Dir, fileAIK)
		if err := os.MkdirAll(inTheWay, 0o700); err != nil {
			r.Fatal(err)
		}
		r.start()
		a := r.newMachine("vm-a", 0x10)
		r.pass(time.Hour)
		r.problems("cannot be kept")
		if _, err := r.ask("vm-a", request(r, nonce, a.layer(r, nonce))); err != nil {
			r.Error(err)
		}
		if err := os.Remove(inTheWay); err != nil {
			r.Fatal(err)
		}
		r.pass(2 * longest)
		r.problems()
		r.again()
		r.problems()
		if n, _ := r.authority.count(KindHost); n != 1 {
			r.Errorf("the authority was asked %d times", n)
		}
	})
}

// TestBackoff: an authority that does not answer is asked less and less often.
func TestBackoff(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.cfg.Poll = time.Hour
		r.authority.set(func(f *fakeAuthority) { f.err = errTest })
		r.start()
		r.pass(10 * time.Second)
		soon, _ := r.authority.count(KindHost)
		r.pass(24 * time.Hour)
		later, _ := r.authority.count(KindHost)
		if most := int(24*time.Hour/(r.m.cfg.RetryMost/2)) + 10; soon < 3 || soon > 10 || later-soon > most || later-soon < 200 {
			r.Errorf("asked %d times in ten seconds, and %d times in a day", soon, later-soon)
		}
	})
}

// TestTokens: a token is shown once, good or bad. A new one in the file is shown when
// the authority wants one.
func TestTokens(t *testing.T) {
	inBubble(t, func(r *rig) {
		file := &tokenFile{text: "wrong"}
		r.cfg.Token = file.read
		r.start()
		r.pass(time.Hour)
		r.problems("no certificate", "the card has no certificate", "refused by the authority")
		if n, tokens := r.authority.count(KindHost); !slices.Equal(tokens, []string{"wrong"}) || n < 3 {
			r.Errorf("tokens shown in %d tries: %q", n, tokens)
		}
		file.set("wrong", errTest)
		r.pass(time.Hour)
		r.problems("no certificate", "the card has no certificate", "test failure")
		file.set("token", nil)
		r.pass(time.Hour)
		r.problems()
	})
}

// TestRevoked: the authority's list, or its refusal of the host's TLS key, shows as a
// problem at once, and a new token mends it.
func TestRevoked(t *testing.T) {
	for name, notice := range map[string]func(r *rig){
		"by the list": func(r *rig) { r.pass(lookEvery + 2*longest) },
		"by a guest": func(r *rig) {
			_, err := r.m.Enrol(r.Context(), door.Caller{VM: "vm-a"}, &door.EnrolRequest{})
			if !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrRevoked) {
				r.Errorf("Enrol: %v, want ErrRevoked", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				file := &tokenFile{text: "token"}
				r.cfg.Token = file.read
				r.start()
				r.card.add("vm-a")
				id := r.m.identity()
				r.authority.set(func(f *fakeAuthority) {
					f.knows = false
					f.revoked = append(f.revoked, id.aik.SerialNumber, id.tls.Leaf.SerialNumber)
				})
				notice(r)
				r.pass(0) // the log is written
				if st := r.m.Status(); len(st.Problems) == 0 || !strings.Contains(r.log.String(), "REVOKED") {
					r.Errorf("problems %q", st.Problems)
				}
				r.authority.set(func(f *fakeAuthority) { f.tokens = []string{"another"} })
				file.set("another", nil)
				r.pass(2 * r.m.cfg.RetryMost)
				r.problems()
				if now := r.m.identity(); now.aik.SerialNumber.Cmp(id.aik.SerialNumber) == 0 {
					r.Error("the certificate is the one that was revoked")
				}
			})
		})
	}
}

// TestStrangeState: what is in the folder and is not this host's, or has ended, is as
// good as nothing.
func TestStrangeState(t *testing.T) {
	for name, change := range map[string]func(r *rig){
		"another name": func(r *rig) { r.cfg.Name = "host-2" },
		"another TPM":  func(r *rig) { r.tpm.Key = newKey(r) },
		"another root": func(r *rig) { r.cfg.Roots = newFakeAuthority(r, r.tpm).ca.Roots() },
		"another key of TLS": func(r *rig) {
			if err := os.Remove(filepath.Join(r.cfg.Dir, "tls.key")); err != nil {
				r.Fatal(err)
			}
		},
		"no PEM": func(r *rig) {
			if err := os.WriteFile(filepath.Join(r.cfg.Dir, fileAIK), []byte("no PEM"), 0o600); err != nil {
				r.Fatal(err)
			}
		},
		"much too long": func(r *rig) {
			if err := os.WriteFile(filepath.Join(r.cfg.Dir, fileTLS), make([]byte, maxFile+1), 0o600); err != nil {
				r.Fatal(err)
			}
		},
		"time": func(r *rig) { time.Sleep(hostLife + time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				token(r)
				r.start()
				r.problems()
				r.stop()
				change(r)
				r.authority.set(func(f *fakeAuthority) { f.err = errTest })
				r.start()
				if st := r.m.Status(); len(st.Problems) == 0 || st.AIK.Serial != "" {
					r.Errorf("status %+v", st)
				}
			})
		})
	}
}

// TestUnfitAnswers: an authority's answer that is not for this host is not kept.
func TestUnfitAnswers(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.authority.tpm = &fakeTPM{bootevidencetest.New(r, 0x10)}
		r.start()
		r.pass(time.Minute)
		r.problems("no certificate", "the card has no certificate", "of another key")
		if there(filepath.Join(r.cfg.Dir, fileAIK)) {
			r.Error("the answer was kept")
		}
		r.authority.tpm = r.tpm
		r.authority.set(func(f *fakeAuthority) { f.ca.Attestation = f.ca.Root }) // no authority below the root
		r.pass(time.Hour)
		r.problems("no certificate", "the card has no certificate", "no authority between")
	})
}

// TestModes: what is kept is the owner's alone.
func TestModes(t *testing.T) {
	inBubble(t, func(r *rig) {
		token(r)
		r.start()
		for _, name := range []string{"", fileAIK, fileTLS, "tls.key", fileCard} {
			info, err := os.Stat(filepath.Join(r.cfg.Dir, name))
			if err != nil || info.Mode().Perm()&0o077 != 0 {
				r.Errorf("%q: %v, %v", name, info, err)
			}
		}
	})
}

// tokenFile is where the host's token comes from.
type tokenFile struct {
	mu   sync.Mutex // guards what follows
	text string
	err  error
}

func (f *tokenFile) read() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text, f.err
}

func (f *tokenFile) set(text string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.text, f.err = text, err
}
