// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/vtpm/aik"
	"hwvtpm/vtpm/door"
)

// An enrolment leaves a certificate and nothing in the TPM; the next one certifies
// the same key again.
func TestEnrol(t *testing.T) {
	r := newRig(t)
	r.Write(0x01c0000a, append(bytes.Clone(r.EK.Raw), 0xff, 0xff)) // as some makers fill it up
	r.Write(0x01c00100, r.Authority.Attestation.Certificate.Raw[:100])
	r.Write(0x01c00101, r.Authority.Attestation.Certificate.Raw[100:])
	a := r.open()
	if _, err := a.Identity(); !errors.Is(err, ErrNotEnrolled) {
		t.Errorf("before: %v", err)
	}
	if err := Enrolled(r.dir); !errors.Is(err, ErrNotEnrolled) {
		t.Errorf("before: %v", err)
	}
	ek, err := a.EK()
	r.fatal(err)
	if ek.VM != vm || len(ek.Chain) != 1 || !bytes.Equal(ek.Chain[0], r.Authority.Attestation.Certificate.Raw) {
		t.Errorf("EK of %q with %d issuers", ek.VM, len(ek.Chain))
	}
	first, err := a.Enrol(t.Context(), AtDoor(r), EnrolOptions{Host: r})
	r.fatal(err)
	if first.VM != vm || len(first.Chain) != 2 || first.Due(time.Now()) || !first.Due(time.Now().Add(13*time.Hour)) {
		t.Errorf("identity %+v", first)
	}
	public := a.Public()
	a.Close()
	a = r.open()
	second, err := a.Enrol(t.Context(), AtDoor(r), EnrolOptions{})
	r.fatal(err)
	if !bytes.Equal(a.Public(), public) || second.Certificate.Equal(first.Certificate) {
		t.Error("the renewal is of another key, or no renewal")
	}
	kept, err := a.Identity()
	r.fatal(err)
	if !kept.Certificate.Equal(second.Certificate) || Enrolled(r.dir) != nil {
		t.Error("the folder has another certificate")
	}
	if slices.Contains(r.Requests(), door.OpEK) {
		t.Error("the host was asked for what NV has")
	}
	if n := r.Loaded(); n != 0 {
		t.Errorf("%d objects and sessions stay in the TPM", n)
	}
}

func TestFolderIsPrivate(t *testing.T) {
	r, _ := enrolled(t)
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		r.fatal(err)
		info, err := d.Info()
		r.fatal(err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	r.fatal(err)
}

// A card that could not write NV has told its host.
func TestCertificateFromTheHost(t *testing.T) {
	r := newRig(t)
	a := r.open()
	if _, err := a.Enrol(t.Context(), AtDoor(r), EnrolOptions{}); !errors.Is(err, aik.ErrNoCertificate) {
		t.Errorf("without a host: %v", err)
	}
	if _, err := a.Enrol(t.Context(), AtDoor(r), EnrolOptions{Host: gone{}}); !errors.Is(err, aik.ErrNoCertificate) || !errors.Is(err, errHost) {
		t.Errorf("with a host that is gone: %v", err)
	}
	r.Spoil = func(_ string, answer any) {
		if eks, ok := answer.(*[]door.EK); ok {
			(*eks)[0].Certificate = r.Authority.Root.Certificate.Raw
		}
	}
	if _, err := a.Enrol(t.Context(), AtDoor(r), EnrolOptions{Host: r, Name: vm}); err == nil {
		t.Error("enrolled with another key's certificate")
	}
	r.Spoil = nil
	if _, err := a.EK(); !errors.Is(err, aik.ErrNoCertificate) {
		t.Errorf("the certificate of another key was kept: %v", err)
	}
	if _, err := a.Enrol(t.Context(), AtDoor(r), EnrolOptions{Host: r}); err != nil {
		t.Fatal(err)
	}
	ek, err := a.EK()
	if err != nil || !ek.Certificate.Equal(r.EK) || len(ek.Chain) != 1 {
		t.Errorf("EK %+v, %v", ek, err)
	}
}

// Whatever a host answers, the certificate that is there stays, and nothing stays in
// the TPM.
func TestHostileAuthority(t *testing.T) {
	r, a := enrolled(t)
	had, err := a.Identity()
	r.fatal(err)
	other := r.TPM.AK(nil)
	for name, tc := range map[string]struct {
		spoil func(op string, answer any)
		want  error
	}{
		"garbage for a challenge": {func(_ string, answer any) {
			if c, ok := answer.(*door.Challenge); ok {
				c.Blob = []byte("garbage")
			}
		}, aik.ErrCredential},
		"challenge that was changed": {func(_ string, answer any) {
			if c, ok := answer.(*door.Challenge); ok {
				c.Blob[len(c.Blob)-1] ^= 1
			}
		}, aik.ErrCredential},
		"challenge for another key": {func(_ string, answer any) {
			if c, ok := answer.(*door.Challenge); ok {
				again, err := r.Challenge(&door.EnrolRequest{Name: vm, EKCertificate: r.EK.Raw, AKPublic: other.TPM2B()})
				r.fatal(err)
				*c = *again
			}
		}, aik.ErrCredential},
		"certificate of another key": {func(_ string, answer any) {
			if c, ok := answer.(*door.Certified); ok {
				c.Certificate = c.Chain
			}
		}, ErrAnswer},
		"no certificate": {func(_ string, answer any) {
			if c, ok := answer.(*door.Certified); ok {
				*c = door.Certified{}
			}
		}, ErrAnswer},
	} {
		r.Spoil = tc.spoil
		if _, err := a.Enrol(t.Context(), AtDoor(r), EnrolOptions{}); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	r.Spoil = nil
	if _, err := a.Enrol(t.Context(), AtDoor(r), EnrolOptions{Name: "vm-2"}); door.Code(err) != door.CodeDenied {
		t.Errorf("another machine's name: %v", err)
	}
	if kept, err := a.Identity(); err != nil || !kept.Certificate.Equal(had.Certificate) {
		t.Errorf("the certificate that was there is gone: %v", err)
	}
	r.TPM.Flush(other)
	if n := r.Loaded(); n != 0 {
		t.Errorf("%d objects and sessions stay in the TPM", n)
	}
}

// The folder of one machine is of no use in another.
func TestFolderOfAnotherTPM(t *testing.T) {
	r, _ := enrolled(t)
	other := newRig(t)
	other.dir = r.dir
	_, err := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}.Execute(other.TPM)
	r.fatal(err)
	if _, err := Open(other.Bus, other.dir); !errors.Is(err, aik.ErrOtherTPM) {
		t.Errorf("Open: %v", err)
	}
}

// A certificate that is for another key than the folder's is none.
func TestStaleCertificate(t *testing.T) {
	r, a := enrolled(t)
	text, err := os.ReadFile(filepath.Join(r.dir, certificateFile))
	r.fatal(err)
	r.fatal(a.Close())
	r.dir = filepath.Join(t.TempDir(), "other")
	a = r.open()
	r.fatal(os.WriteFile(filepath.Join(r.dir, certificateFile), text, 0o600))
	if _, err := a.Identity(); !errors.Is(err, ErrNotEnrolled) {
		t.Errorf("Identity: %v", err)
	}
	if _, err := a.Machine(t.Context(), nonce, Selection{}, nil); !errors.Is(err, ErrNotEnrolled) {
		t.Errorf("Machine: %v", err)
	}
}
