// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"hwvtpm/coproc/abi"
)

// victimDir names the store of a card that a test kills.
const victimDir = "HWVTPM_TEST_VICTIM"

// victim is a card's process that is killed. It says what it is about to do, and
// when it was acknowledged: "try VERB SLOT" and "ok VERB SLOT".
func victim(dir string) {
	self, err := os.Executable()
	fakeMust(err)
	c, err := Open(Config{Dir: dir, Engine: self, ParkAfter: 5 * time.Millisecond, MaxLive: 2, AnchorInterval: time.Millisecond})
	fakeMust(err)
	os.Stdout.WriteString("ok open card\n")
	var wg sync.WaitGroup
	for g := range 3 {
		wg.Go(func() {
			for i := 0; ; i++ {
				work(c, fmt.Sprintf("p%d-g%d-%d", os.Getpid(), g, i))
			}
		})
	}
	wg.Wait()
}

// work is a slot's life, of which every step is told.
func work(c *Card, name string) {
	r := &rig{Card: c, admin: c.NewSession(Principal{Admin: true, Name: "victim"})}
	step := func(verb string, do func() error) {
		os.Stdout.WriteString("try " + verb + " " + name + "\n")
		fakeMust(do())
		os.Stdout.WriteString("ok " + verb + " " + name + "\n")
	}
	var info abi.SlotInfo
	step("create", func() (err error) { info, err = r.tryCreate(name); return err })
	cl, err := r.tryOpen(name)
	fakeMust(err)
	fakeMust(cl.powerOn())
	for range 1 + rand.IntN(6) {
		step("add", func() error { _, err := cl.run("add"); return err })
		time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
	}
	cl.close()
	for range rand.IntN(3) {
		step("certify", func() error { _, _, err := do(r.admin, abi.OpSlotCertify, info.Number, nil); return err })
	}
	if rand.IntN(2) == 0 {
		step("destroy", func() error {
			ref := abi.AppendSlotRef(nil, &abi.SlotRef{ID: info.ID})
			_, _, err := do(r.admin, abi.OpSlotDestroy, info.Number, ref)
			return err
		})
	}
}

// told is what a victim has said of a slot.
type told struct {
	tried, acknowledged map[string]int
}

// expect reads a victim's words.
func expect(all map[string]*told, out []byte) {
	for line := range strings.Lines(string(out)) {
		word := strings.Fields(line)
		if len(word) != 3 || !strings.HasSuffix(line, "\n") {
			continue // cut by the kill
		}
		s := all[word[2]]
		if s == nil {
			s = &told{map[string]int{}, map[string]int{}}
			all[word[2]] = s
		}
		switch word[0] {
		case "try":
			s.tried[word[1]]++
		case "ok":
			s.acknowledged[word[1]]++
		}
	}
}

// created is how many slots victims have said to have made.
func created(all map[string]*told) (n int) {
	for _, s := range all {
		n += s.acknowledged["create"]
	}
	return n
}

// judge compares a slot with what was said of it.
func (s *told) judge(r *rig, name string) error {
	_, err := r.named(name)
	exists := err == nil
	switch {
	case s.acknowledged["destroy"] > 0 && exists:
		return fmt.Errorf("was destroyed and exists")
	case s.acknowledged["create"] > 0 && s.tried["destroy"] == 0 && !exists:
		return fmt.Errorf("was created and is lost")
	case !exists:
		return nil
	}
	if cert, err := r.certificate(name, fakeHandle); err != nil || len(cert.DER) == 0 {
		return fmt.Errorf("has no certificate: %+v, %w", cert, err)
	}
	c, err := r.tryOpen(name)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.powerOn(); err != nil {
		return err
	}
	out, err := c.run("get")
	if err != nil {
		return err
	}
	var n int
	var id string
	fmt.Sscan(out, &n, &id)
	if want := fmt.Sprintf("%x", r.show(name).ID); id != want {
		return fmt.Errorf("holds the state of %s, is %s", id, want)
	}
	if n < s.acknowledged["add"] || n > s.tried["add"] {
		return fmt.Errorf("has %d, of %d that were acknowledged and %d tried", n, s.acknowledged["add"], s.tried["add"])
	}
	return nil
}

// The card's process is killed at any moment, again and again: what it has
// acknowledged is there, what it has destroyed is not, no two slots are mixed up,
// and each has a certificate.
func TestCardIsKilled(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	cfg := fakeConfig(t)
	made := openCard(t, cfg) // a card that is cut short while it is made is no card
	certified(t, made)
	must(t, made.Close())
	all := map[string]*told{}
	for i := 0; i < rounds || created(all) == 0 && i < 10*rounds; i++ { // one at least has to come to something
		kill := time.Duration(20+rand.IntN(400*(1+i/rounds))) * time.Millisecond
		expect(all, runVictim(t, cfg, kill))
	}
	delete(all, "card")
	r := openCard(t, cfg)
	for name, s := range all {
		if err := s.judge(r, name); err != nil {
			t.Errorf("slot %s: %v", name, err)
		}
	}
	t.Logf("%d slots were created, %d are left; strays: %d", created(all), len(r.all()), len(r.store.Strays()))
	if created(all) == 0 {
		t.Error("no victim lived long enough to do anything")
	}
}

func runVictim(t *testing.T, cfg Config, d time.Duration) []byte {
	t.Helper()
	cmd := exec.Command(cfg.Engine)
	cmd.Env = append(os.Environ(), victimDir+"="+cfg.Dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = patience // workers have its standard error for a moment still
	must(t, cmd.Start())
	time.Sleep(d + 50*time.Millisecond)
	cmd.Process.Kill()
	cmd.Wait()
	if strings.Contains(errs.String(), "error fake worker") || strings.Contains(errs.String(), "panic") {
		t.Fatalf("victim failed by itself: %s", errs.String())
	}
	return out.Bytes()
}
