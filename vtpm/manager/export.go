// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"hwvtpm/control/ca"
	"hwvtpm/internal/durable"
)

// What is in the folder of certificates. All of it is public.
//
//	host.pem            host AIK, attestation authority
//	coprocessor.pem     coprocessor AIK, host AIK, attestation authority
//	vm/NAME.ek.pem      for each endorsement key: its certificate and those above it
//	vm/NAME.aik.pem     the attestation key's that was seen last, and those above it
const (
	dirVMs     = "vm"
	suffixEK   = ".ek.pem"
	suffixAIK  = ".aik.pem"
	exportMode = 0o644
)

// export writes the certificates of host and card.
func (m *Manager) export(l *link, id *identity) {
	if m.cfg.Certificates == "" || l.bond == nil {
		return
	}
	err := m.makeFolders()
	if err == nil {
		err = errors.Join(
			durable.Replace(filepath.Join(m.cfg.Certificates, "host.pem"), ca.PEM(id.chain()...), exportMode),
			durable.Replace(filepath.Join(m.cfg.Certificates, "coprocessor.pem"), ca.PEM(l.bond.chain(id)...), exportMode))
	}
	m.hostFiles = err
	m.exported(err)
}

// makeFolders makes the folders that are not there, for everybody to read.
func (m *Manager) makeFolders() error {
	for _, dir := range []string{m.cfg.Certificates, filepath.Join(m.cfg.Certificates, dirVMs)} {
		if err := os.Mkdir(dir, 0o755); errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask is
			return err
		}
	}
	return nil
}

// exported notes whether certificates could be written out, and logs what is new.
func (m *Manager) exported(err error) {
	m.mu.Lock()
	before := m.problems[problemFiles]
	if err != nil {
		err = fmt.Errorf("certificates are not written out: %w", err)
	}
	m.problems[problemFiles] = err
	m.mu.Unlock()
	if err != nil && (before == nil || before.Error() != err.Error()) {
		m.log.Warn("files", "error", err)
	}
}

func (m *Manager) vmFile(vm, suffix string) string {
	return filepath.Join(m.cfg.Certificates, dirVMs, vm+suffix)
}

// written is what a machine's file was made of.
type written struct {
	slot     [16]byte // its id
	complete bool
}

// exportSlots writes the certificates of machines that are new or have new ones, and
// removes those of machines that are gone.
func (m *Manager) exportSlots(l *link, next map[string]*slot) {
	if m.cfg.Certificates == "" || l == nil || l.bond == nil {
		return
	}
	var errs []error
	if m.written == nil || m.writtenBy != l.bond {
		m.written, m.writtenBy = map[string]written{}, l.bond
		errs = append(errs, m.sweep(next))
	}
	for name := range m.written {
		if next[name] == nil {
			delete(m.written, name)
			errs = append(errs, removeFile(m.vmFile(name, suffixEK)), removeFile(m.vmFile(name, suffixAIK)))
		}
	}
	for name, s := range next {
		now := written{s.info.ID, s.complete}
		if m.written[name] == now {
			continue
		}
		err := durable.Replace(m.vmFile(name, suffixEK), s.pem(l.bond.chain(l.bond.host)), exportMode)
		if err == nil {
			m.written[name] = now
		}
		errs = append(errs, err)
	}
	m.exported(errors.Join(append(errs, m.hostFiles)...))
}

func (s *slot) pem(above []*x509.Certificate) []byte {
	var text bytes.Buffer
	for _, e := range s.eks {
		if e.cert != nil {
			text.Write(ca.PEM(append([]*x509.Certificate{e.cert}, above...)...))
		}
	}
	return text.Bytes()
}

// sweep removes files of machines that are not there: they went while nobody looked.
func (m *Manager) sweep(next map[string]*slot) error {
	entries, err := os.ReadDir(filepath.Join(m.cfg.Certificates, dirVMs))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range entries {
		for _, suffix := range []string{suffixEK, suffixAIK} {
			if vm, ok := strings.CutSuffix(e.Name(), suffix); ok && next[vm] == nil {
				errs = append(errs, removeFile(m.vmFile(vm, suffix)))
			}
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) exportAIK(vm, chain string) {
	if m.cfg.Certificates == "" {
		return
	}
	if err := durable.Replace(m.vmFile(vm, suffixAIK), []byte(chain), exportMode); err != nil {
		m.log.Warn("a machine's certificate is not written out", "vm", vm, "error", err)
	}
}
