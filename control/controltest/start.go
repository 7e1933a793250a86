// SPDX-License-Identifier: Apache-2.0

package controltest

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"hwvtpm/coproc"
	"hwvtpm/coproc/coproctest/programs"
	"hwvtpm/coproc/sim"
)

// hang is when a test gives up on a program.
const hang = time.Minute

func encodeECDSA(r, s []byte) ([]byte, error) {
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)})
}

// built is the worker program.
var built = programs.New(sim.EngineName)

// Main runs a package's tests and removes what StartSim built.
func Main(m *testing.M) int { return built.Main(m) }

// StartSim gives a new TPM of a simulated card.
func StartSim(t testing.TB) *TPM {
	t.Helper()
	card, err := sim.Open(sim.Config{Dir: filepath.Join(t.TempDir(), "tpm"), EnginePath: built.Path(t, sim.EngineName)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { card.Close() })
	slot, err := card.OpenSlot(t.Context(), sim.SlotName)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slot.PowerOn(t.Context(), coproc.RunID{1}); err != nil {
		t.Fatal(err)
	}
	p := &TPM{t, slotTransport{t, slot}}
	_, err = tpm2.Startup{StartupType: tpm2.TPMSUClear}.Execute(p)
	p.fatal("Startup", err)
	return p
}

type slotTransport struct {
	t    testing.TB
	slot coproc.Slot
}

func (s slotTransport) Send(cmd []byte) ([]byte, error) {
	resp := make([]byte, coproc.MaxTransfer)
	n, err := s.slot.Execute(s.t.Context(), coproc.Command{Bytes: cmd}, resp)
	return resp[:n], err
}

// Swtpm is a TPM as a manufacturer ships it: endorsement keys, and certificates
// for them in NV.
type Swtpm struct {
	*TPM
	Socket       string
	Manufacturer string // folder with the maker's certificates
}

// StartSwtpm makes one with swtpm_setup and starts it. It skips the test outside
// of the tier that has such programs.
func StartSwtpm(t testing.TB) *Swtpm {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("needs swtpm_setup: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
	dir, err := os.MkdirTemp("", "swtpm") // short, for the socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Swtpm{Socket: filepath.Join(dir, "s"), Manufacturer: filepath.Join(dir, "maker")}
	if err := s.manufacture(dir); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir+"/tpm,mode=0600", "--server", "type=unixio,path="+s.Socket,
		"--ctrl", "type=unixio,path="+s.Socket+".ctrl", "--flags", "not-need-init,startup-clear", "--seccomp", "action=none")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	for deadline := time.Now().Add(hang); ; time.Sleep(10 * time.Millisecond) {
		if _, err = os.Stat(s.Socket); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("swtpm does not come up: %v", err)
		}
	}
	conn, err := linuxudstpm.Open(s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	s.TPM = &TPM{t, conn}
	return s
}

// manufacture runs swtpm_setup with a certificate authority of its own.
func (s *Swtpm) manufacture(dir string) error {
	ca := filepath.Join(dir, "ca")
	files := map[string]string{
		"localca.conf":    fmt.Sprintf("statedir = %s\nsigningkey = %[1]s/signkey.pem\nissuercert = %[1]s/issuercert.pem\ncertserial = %[1]s/certserial\n", ca),
		"localca.options": "--platform-manufacturer Maker\n--platform-version 1.0\n--platform-model Board\n",
		"setup.conf": fmt.Sprintf("create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = %s/localca.conf\n"+
			"create_certs_tool_options = %[1]s/localca.options\nactive_pcr_banks = sha256\n", dir),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	err := errors.Join(os.Mkdir(ca, 0o700), os.Mkdir(s.Manufacturer, 0o700), os.Mkdir(filepath.Join(dir, "tpm"), 0o700))
	if err != nil {
		return err
	}
	out, err := exec.Command("swtpm_setup", "--tpm2", "--tpmstate", filepath.Join(dir, "tpm"), "--config", filepath.Join(dir, "setup.conf"),
		"--createek", "--create-ek-cert", "--create-platform-cert", "--lock-nvram", "--vmid", "host-1").CombinedOutput()
	if err != nil {
		return fmt.Errorf("swtpm_setup: %w\n%s", err, out)
	}
	for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuercert.pem"} {
		if err := os.Rename(filepath.Join(ca, name), filepath.Join(s.Manufacturer, name)); err != nil {
			return err
		}
	}
	return nil
}

// ReadNV reads an NV index that anybody may read.
func (p *TPM) ReadNV(index tpm2.TPMHandle) []byte {
	p.t.Helper()
	r, err := tpm2.NVReadPublic{NVIndex: index}.Execute(p)
	p.fatal("NV_ReadPublic", err)
	pub, err := r.NVPublic.Contents()
	p.fatal("NV public area", err)
	var data []byte
	for len(data) < int(pub.DataSize) {
		chunk, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: r.NVName},
			Size:       min(512, pub.DataSize-uint16(len(data))), Offset: uint16(len(data)),
		}.Execute(p)
		p.fatal("NV_Read", err)
		data = append(data, chunk.Data.Buffer...)
	}
	return data
}
