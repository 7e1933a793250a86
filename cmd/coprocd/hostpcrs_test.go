// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-tpm/tpm2"

	"hwvtpm/coproc"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/tpmtest"
	"hwvtpm/vtpm/hostpcr"
	"hwvtpm/vtpm/tpmlink"
)

// measure extends the host's TPM as OVMF did when it wrote a log, which it gives.
func (s *swtpm) measure() []byte {
	s.t.Helper()
	log, err := os.ReadFile("../../vtpm/hostpcr/testdata/ovmf-4banks.bin")
	if err != nil {
		s.t.Fatal(err)
	}
	parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{AllowPadding: true})
	if err != nil {
		s.t.Fatal(err)
	}
	algs := []tpm2.TPMIAlgHash{tpm2.TPMAlgSHA1, tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA384}
	digests := [][]tcg.Event{parsed.Events(register.HashSHA1), parsed.Events(register.HashSHA256), parsed.Events(register.HashSHA384)}
	err = s.use(func(t *tpmlink.Link) error {
		for i, e := range digests[0] {
			if e.Type == tcg.NoAction {
				continue
			}
			cmd := tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(e.Index), Auth: tpm2.PasswordAuth(nil)}}
			for k, alg := range algs {
				cmd.Digests.Digests = append(cmd.Digests.Digests, tpm2.TPMTHA{HashAlg: alg, Digest: digests[k][i].Digest})
			}
			if _, err := cmd.Execute(t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return log
}

// readHost reads the host's PCRs with a key made for it.
func (s *swtpm) readHost(log []byte) coproc.PCRMap {
	s.t.Helper()
	var m coproc.PCRMap
	err := s.use(func(t *tpmlink.Link) error {
		ak, err := tpm2.CreatePrimary{
			PrimaryHandle: tpm2.TPMRHEndorsement,
			InPublic: tpm2.New2B(tpm2.TPMTPublic{
				Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
				ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
					UserWithAuth: true, Restricted: true, SignEncrypt: true},
				Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
					CurveID: tpm2.TPMECCNistP256,
					Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA,
						&tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
				}),
			}),
		}.Execute(t)
		if err != nil {
			return err
		}
		defer tpm2.FlushContext{FlushHandle: ak.ObjectHandle}.Execute(t)
		pub, err := ak.OutPublic.Contents()
		if err != nil {
			return err
		}
		key, err := tpm2.Pub(*pub)
		if err != nil {
			return err
		}
		host, err := hostpcr.New(hostpcr.Config{
			TPM: t, AK: hostpcr.AK{Handle: ak.ObjectHandle, Name: ak.Name, Public: key},
			Log: func() ([]byte, error) { return log, nil },
		})
		if err != nil {
			return err
		}
		defer host.Close()
		r, err := host.Recent(s.t.Context(), 0)
		if err != nil {
			return err
		}
		m, err = r.Map()
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// TestHostPCRs: PCR 0-7 of a slot are those of the host's TPM, also after its worker
// died, and after a reset.
func TestHostPCRs(t *testing.T) {
	host := startSwtpm(t)
	log := host.measure()
	m := host.readHost(log)
	d := newDaemon(t).start()
	d.create("a")
	slot, err := d.device().OpenSlot(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Close()
	if _, err := slot.PowerOn(t.Context(), coproc.RunID{1}); err != nil {
		t.Fatal(err)
	}
	if err := slot.(coproc.PCRMapper).MapPCRs(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	guest := tpmtest.New(t, func(cmd []byte) ([]byte, error) {
		resp := make([]byte, coproc.MaxTransfer)
		n, err := slot.Execute(t.Context(), coproc.Command{Bytes: cmd}, resp)
		return resp[:n], err
	})
	guest.Startup()
	check := func(when string) {
		t.Helper()
		err := host.use(func(h *tpmlink.Link) error {
			on := tpmtest.New(t, h.Send)
			for pcr := range abi.HostPCRs {
				here, there := guest.PCR(pcr), on.PCR(pcr)
				if here != there || bytes.Equal(here[:], make([]byte, len(here))) {
					t.Errorf("%s: PCR %d = %x, the host has %x", when, pcr, here, there)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	check("after Startup")
	guest.Extend(10, "the guest's")
	health, err := slot.Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := os.FindProcess(health.WorkerPID); err != nil || p.Kill() != nil {
		t.Fatalf("kill worker %d: %v", health.WorkerPID, err)
	}
	check("after the worker's death")
	if err := slot.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	guest.Startup()
	check("after a reset")
	if _, err := tpmtest.ExtendCommand(0, "mine").Execute(guest); !errors.Is(err, tpm2.TPMRCLocality) {
		t.Errorf("PCR_Extend(0): %v, want TPM_RC_LOCALITY", err)
	}
}
