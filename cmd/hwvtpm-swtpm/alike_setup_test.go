// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"
)

// setup runs swtpm_setup as root, which swtpm's would leave else.
func (s *side) setup(state string, args ...string) {
	s.Helper()
	s.run(append([]string{"swtpm_setup", "--tpm2", "--runas", "root", "--logfile", s.path("log"), "--tpm-state", state}, args...)...)
}

// look starts the TPM of a state directory and gives its PCR banks, and the
// handles of its persistent keys.
func (s *side) look(state string) (banks, handles string) {
	s.Helper()
	socket := s.path("control")
	pid := s.daemon(state, "--ctrl", "type=unixio,path="+socket, "--log", "file="+s.path("log"))
	c, data := s.machine(socket)
	defer c.conn.Close()
	defer data.Close()
	s.tpm("TPM2_Startup", data, startup)
	banks, handles = string(s.tpm("PCR banks", data, getBanks)), string(s.tpm("persistent handles", data, getHandles))
	if _, err := c.ask(cmdShutdown, nil, 0); err != nil {
		s.Fatal(err)
	}
	s.gone(pid)
	return banks, handles
}

// wantBanks notes the banks, and sees that the keys are still those of before.
func (s *side) wantBanks(state string, keys *string) {
	s.Helper()
	banks, handles := s.look(state)
	s.note("banks: %x", banks)
	if *keys != "" && handles != *keys {
		s.Errorf("the persistent keys are now %x, were %x", handles, *keys)
	}
	*keys = handles
}

// PCR banks are changed, and nothing else is.
func TestReconfigureIsAlike(t *testing.T) {
	alike(t, func(s *side) {
		state, keys := s.state(), ""
		s.setup(state, "--create-spk", "--pcr-banks", "sha1,sha256")
		s.wantBanks(state, &keys)
		for _, banks := range []string{"sha384,sha512", "-", "sha256"} {
			s.setup(state, "--reconfigure", "--pcr-banks", banks)
			s.wantBanks(state, &keys)
		}
		s.setup(state)
		s.wantBanks(state, &keys)
		s.setup(state, "--not-overwrite")
		s.wantBanks(state, &keys)
		s.refusals(state)
	})
}

// refusals are command lines that must fail.
func (s *side) refusals(state string) {
	s.Helper()
	s.setup(state, "--reconfigure", "--pcr-banks", "sha3")
	s.setup(state, "--reconfigure", "--createek", "--pcr-banks", "sha1")
	s.setup(state, "--reconfigure", "--create-ek-cert", "--pcr-banks", "sha1")
	s.setup(s.path("none"), "--reconfigure", "--pcr-banks", "sha256")
}

// What is refused changes nothing (swtpm 0.7.1 loses the TPM over some of it),
// and a TPM that runs is another process' to change.
func TestRefusedSetup(t *testing.T) {
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("set HWVTPM_TEST_ROOT=1 to run the programs as root")
	}
	s := ourSide(t)
	state, keys := s.state(), ""
	s.setup(state, "--create-spk", "--pcr-banks", "sha384")
	s.wantBanks(state, &keys)
	before := s.seen[len(s.seen)-1]
	s.seen = nil
	s.refusals(state)
	socket := s.path("control")
	pid := s.daemon(state, "--ctrl", "type=unixio,path="+socket)
	s.setup(state, "--reconfigure", "--pcr-banks", "sha1")
	s.ioctl("--unix", socket, "-s")
	s.gone(pid)
	for _, line := range s.seen {
		if strings.HasPrefix(line, "swtpm_setup --tpm2") && !strings.HasSuffix(line, "exit 1") {
			t.Errorf("%s, want 1", line)
		}
	}
	s.wantBanks(state, &keys)
	if after := s.seen[len(s.seen)-1]; after != before {
		t.Errorf("%s after refusals, want the %s of before", after, before)
	}
}
