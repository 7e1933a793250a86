// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hwvtpm/guest/lab"
)

// firmware is a way for a machine to come to its kernel.
type firmware struct {
	name    string
	options func(*bed) lab.VMOptions
	efi     bool // the kernel was started by UEFI
	mbr     bool // firmware has measured a master boot record
	log     bool // firmware has left an event log
}

var firmwares = []firmware{
	{name: "SeaBIOS from a disk", options: func(*bed) lab.VMOptions { return lab.VMOptions{Disk: true} }, mbr: true, log: true},
	{name: "OVMF", options: func(b *bed) lab.VMOptions { return lab.VMOptions{Extra: b.pflash()} }, efi: true, log: true},
	{name: "kernel by SeaBIOS", options: func(*bed) lab.VMOptions { return lab.VMOptions{} }, log: true},
	{name: "kernel by qboot", options: func(*bed) lab.VMOptions { return lab.VMOptions{Extra: []string{"-bios", "qboot.rom"}} }},
}

// Debian 12's tpm2-tools use this project's TPM in a guest of each firmware, over
// each of QEMU's TPM devices. What they make is checked outside of the guest.
func TestToolsInEveryGuest(t *testing.T) {
	for _, fw := range firmwares {
		t.Run(fw.name, func(t *testing.T) {
			m := newBed(t).startEmulator()
			for _, model := range []string{"tpm-crb", "tpm-tis"} {
				e := &emulated{machine: m, qemu: m.Env.StockQEMU(), model: model}
				e.power(fw.options(m.bed))
				e.wantFirmware(fw)
				e.useStock()
				e.useKeys()
				e.useNV()
				e.sendQuote()
				e.quit()
			}
		})
	}
}

// wantFirmware sees that the guest came up as fw says, and what was measured.
func (e *emulated) wantFirmware(fw firmware) {
	e.Helper()
	if efi := strings.Contains(e.sh("ls /sys/firmware"), "efi"); efi != fw.efi {
		e.Errorf("the guest was started by UEFI: %v, want %v", efi, fw.efi)
	}
	if grub := strings.Contains(e.sh("cat /proc/cmdline"), "BOOT_IMAGE"); grub != fw.mbr {
		e.Errorf("the kernel was started by GRUB: %v, want %v", grub, fw.mbr)
	}
	if got := e.sh("tpm2_getcap properties-fixed"); !strings.Contains(got, "TPM2_PT_FAMILY_INDICATOR:\n  raw: 0x322E3000") {
		e.Errorf("tpm2_getcap properties-fixed printed %q", got)
	}
	if !fw.log {
		if got := e.sh("tpm2_pcrread sha256:0"); !strings.Contains(got, "0x"+strings.Repeat("0", 64)) {
			e.Errorf("PCR 0 is not empty after a start that measures nothing: %s", got)
		}
		return
	}
	log := e.checkLog()
	e.checkQuote(log)
	mbr, err := os.ReadFile(filepath.Join(e.Env.Cache, "grub", "boot.img"))
	e.must("GRUB's boot record", err)
	code := sha256.Sum256(mbr[:440]) // without the table of partitions
	if measured := bytes.Contains(log.log, code[:]); measured != fw.mbr {
		e.Errorf("the boot record is in the event log: %v, want %v", measured, fw.mbr)
	}
	if inside, outside := e.sh("tpm2_eventlog "+guestLog), e.host("tpm2_eventlog", e.keep("log", log.log)); inside != outside {
		e.Errorf("tpm2_eventlog in the guest and on the host differ:\n%s\n%s", inside, outside)
	}
	printed := e.sh("tpm2_pcrread sha256:0,1,2,3,4,5,6,7")
	for i, v := range log.pcrs {
		if !strings.Contains(printed, fmt.Sprintf("%d : 0x%X", i, v)) {
			e.Errorf("tpm2_pcrread does not have PCR %d as %X in:\n%s", i, v, printed)
		}
	}
}

// useKeys makes a key below a primary key and signs with it.
func (e *emulated) useKeys() {
	e.Helper()
	const message = "an order"
	e.sh("echo -n '" + message + "' > /order" +
		" && tpm2_createprimary -Q -C o -G ecc256 -c /primary.ctx" +
		" && tpm2_create -Q -C /primary.ctx -G ecc256:ecdsa-sha256 -u /key.pub -r /key.priv" +
		" && tpm2_load -Q -C /primary.ctx -u /key.pub -r /key.priv -c /key.ctx" +
		" && tpm2_readpublic -Q -c /key.ctx -f pem -o /key.pem" +
		" && tpm2_sign -Q -c /key.ctx -g sha256 -o /order.sig /order" +
		" && tpm2_sign -Q -c /key.ctx -g sha256 -f plain -o /order.der /order" +
		" && tpm2_verifysignature -Q -c /key.ctx -g sha256 -m /order -s /order.sig")
	block, _ := pem.Decode(e.take("/key.pem"))
	if block == nil {
		e.Fatal("tpm2_readpublic wrote no PEM")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	e.must("the key", err)
	sum := sha256.Sum256([]byte(message))
	if key, ok := public.(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(key, sum[:], e.take("/order.der")) {
		e.Error("the signature is not of the key")
	}
	r, err := e.guest.Agent.Run(e.ctx, "gosh", "-c", "echo another > /other && tpm2_verifysignature -Q -c /key.ctx -g sha256 -m /other -s /order.sig")
	e.must("tpm2_verifysignature", err)
	if r.Err() == nil {
		e.Error("tpm2_verifysignature takes the signature for another message")
	}
}

// useNV writes and reads an NV index of its own.
func (e *emulated) useNV() {
	e.Helper()
	const index, text = "0x1500016", "kept by the card"
	got := e.sh(fmt.Sprintf("echo -n '%s' > /nv && tpm2_nvdefine -Q -C o -s %d %s && tpm2_nvwrite -Q -C o -i /nv %s && tpm2_nvread -C o %s && tpm2_nvundefine -Q -C o %s",
		text, len(text), index, index, index, index))
	if got != text {
		e.Errorf("tpm2_nvread printed %q, want %q", got, text)
	}
	if list := e.sh("tpm2_nvreadpublic"); strings.Contains(list, index) {
		e.Errorf("%s is still there after tpm2_nvundefine:\n%s", index, list)
	}
}

// sendQuote has tpm2_checkquote of the host check a quote of the guest.
func (e *emulated) sendQuote() {
	e.Helper()
	const nonce = "a0a1a2a3a4a5"
	e.sh("tpm2_createprimary -Q -C e -G ecc256:ecdsa-sha256:null -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign' -c /sent.ctx" +
		" && tpm2_readpublic -Q -c /sent.ctx -f pem -o /sent.pem" +
		" && tpm2_quote -Q -c /sent.ctx -l sha256:0,1,2,3,4,5,6,7,8 -q " + nonce + " -m /sent -s /sent.sig -o /sent.pcrs -g sha256")
	check := []string{"tpm2_checkquote", "-g", "sha256"}
	for option, name := range map[string]string{"-u": "/sent.pem", "-m": "/sent", "-s": "/sent.sig", "-f": "/sent.pcrs"} {
		check = append(check, option, e.keep(filepath.Base(name), e.take(name)))
	}
	e.host(append(check, "-q", nonce)...)
	if exec.CommandContext(e.ctx, check[0], append(check[1:], "-q", "00")...).Run() == nil {
		e.Error("tpm2_checkquote takes the quote for one with another nonce")
	}
}

// take brings a file out of the guest.
func (e *emulated) take(name string) []byte {
	e.Helper()
	b, err := e.guest.Agent.ReadFile(e.ctx, name)
	e.must("reading "+name, err)
	return b
}

// keep stores what came from the guest for programs of the host.
func (e *emulated) keep(name string, b []byte) string {
	e.Helper()
	path := filepath.Join(e.TempDir(), name)
	e.must("keeping "+name, os.WriteFile(path, b, 0o600))
	return path
}

// host runs a program of the host and returns what it prints.
func (e *emulated) host(args ...string) string {
	e.Helper()
	out, err := exec.CommandContext(e.ctx, args[0], args[1:]...).Output()
	e.must(args[0], err)
	return strings.TrimSpace(string(out))
}
