// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"hwvtpm/qmp"
)

const (
	measured = "8" // a PCR that only a reset of the machine clears
	nvIndex  = "0x1500016"
	nvText   = "hwvtpm was here"
)

var zeroPCR = strings.Repeat("00", sha256.Size)

var steps = []struct {
	title string
	do    func(*demo) error
}{
	{"Power on: backend, coprocessor and virtual machine", powerOn},
	{"The guest's kernel has a TPM 2.0", identify},
	{"Random numbers from the TPM", random},
	{"A measurement goes into a PCR", measure},
	{"A key that never leaves the TPM signs", sign},
	{"A quote, checked outside of the virtual machine", quote},
	{"Something to remember goes into NV storage", remember},
	{"The guest unbinds its driver and binds it again", rebind},
	{"The coprocessor's engine is killed", killEngine},
	{"The machine is reset through QEMU's monitor", reset},
	{"Power off; another machine starts on the same state", powerCycle},
}

func powerOn(d *demo) error {
	if err := d.powerOn(); err != nil {
		return err
	}
	d.out.held("%s is bound to tpm_virtio", d.virtio)
	return nil
}

func identify(d *demo) error {
	if _, err := d.sh("dmesg | grep tpm0:"); err != nil {
		return err
	}
	out, err := d.sh("tpm2_getcap properties-fixed")
	if err != nil {
		return err
	}
	if !strings.Contains(out, "2.0") {
		return errors.New("the TPM does not say that it is of family 2.0")
	}
	d.out.held("a TPM of family 2.0 answers")
	return nil
}

func random(d *demo) error {
	var draws [2]string
	for i := range draws {
		out, err := d.sh("tpm2_getrandom --hex 16")
		if err != nil {
			return err
		}
		draws[i] = strings.TrimSpace(out)
	}
	if len(draws[0]) != 32 || draws[0] == draws[1] {
		return fmt.Errorf("draws are %q", draws)
	}
	d.out.held("16 bytes each time, never the same")
	return nil
}

func measure(d *demo) error {
	event := sha256.Sum256([]byte("a boot loader"))
	if _, err := d.sh("tpm2_pcrextend " + measured + ":sha256=" + hexOf(event[:])); err != nil {
		return err
	}
	want := sha256.Sum256(append(make([]byte, sha256.Size), event[:]...))
	d.pcr = hexOf(want[:])
	return d.expectPCR(d.pcr, "is SHA-256(zeros | measurement)")
}

func sign(d *demo) error {
	for _, line := range []string{
		"echo an order > /tmp/order",
		"tpm2_createprimary -C o -G ecc:ecdsa-sha256 -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign' -c /tmp/key.ctx -Q",
		"tpm2_sign -c /tmp/key.ctx -g sha256 -o /tmp/order.sig /tmp/order",
		"tpm2_verifysignature -c /tmp/key.ctx -g sha256 -m /tmp/order -s /tmp/order.sig",
	} {
		if _, err := d.sh(line); err != nil {
			return err
		}
	}
	d.out.held("the signature is good")
	if _, err := d.sh("echo another order > /tmp/order && tpm2_verifysignature -c /tmp/key.ctx -g sha256 -m /tmp/order -s /tmp/order.sig"); err == nil {
		return errors.New("the signature holds for another text")
	}
	d.out.held("and not for another text")
	return nil
}

func quote(d *demo) error {
	nonce := make([]byte, 16)
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	for _, line := range []string{
		"tpm2_readpublic -c /tmp/key.ctx -f pem -o /tmp/key.pem -Q",
		"tpm2_quote -c /tmp/key.ctx -l sha256:" + measured + " -g sha256 -q " + hexOf(nonce) + " -m /tmp/quote -s /tmp/quote.sig -o /tmp/quote.pcrs -Q",
	} {
		if _, err := d.sh(line); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "quote-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := d.fetchFiles(dir, "key.pem", "quote", "quote.sig", "quote.pcrs"); err != nil {
		return err
	}
	check := []string{"tpm2_checkquote", "-u", "key.pem", "-m", "quote", "-s", "quote.sig", "-f", "quote.pcrs", "-g", "sha256", "-q"}
	out, err := d.host(dir, append(check, hexOf(nonce))...)
	if err != nil {
		return err
	}
	if !strings.Contains(strings.ToLower(out), d.pcr) {
		return fmt.Errorf("the quote is not over PCR value %s", d.pcr)
	}
	d.out.held("signed by that key, over our nonce and that PCR value")
	return nil
}

func remember(d *demo) error {
	for _, line := range []string{
		fmt.Sprintf("tpm2_nvdefine -C o -s %d -a 'ownerread|ownerwrite' %s", len(nvText), nvIndex),
		fmt.Sprintf("echo -n %s > /tmp/nv && tpm2_nvwrite -C o -i /tmp/nv %s", nvText, nvIndex),
	} {
		if _, err := d.sh(line); err != nil {
			return err
		}
	}
	return d.expectNV("holds it")
}

func rebind(d *demo) error {
	driver := "/sys/bus/virtio/drivers/tpm_virtio/"
	for _, verb := range []string{"unbind", "bind"} {
		if _, err := d.sh("echo " + d.virtio + " > " + driver + verb); err != nil {
			return err
		}
	}
	return d.expectPCR(d.pcr, "is kept: a guest cannot start its measurements over")
}

func killEngine(d *demo) error {
	pid := d.backend.Engine()
	if pid == 0 {
		return errors.New("the backend has no engine")
	}
	d.out.command("host$", fmt.Sprintf("kill -9 %d   # hwvtpm-engine", pid))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	if err := d.expectPCR(d.pcr, "is kept: a crash does not reset it"); err != nil {
		return err
	}
	if now := d.backend.Engine(); now == 0 || now == pid {
		return fmt.Errorf("engine %d was killed and now it is %d", pid, now)
	}
	d.out.held("another engine took over, and the guest did not notice")
	return nil
}

func reset(d *demo) error {
	before := d.guest.Hello
	d.out.command("qmp>", `{"execute": "system_reset"}`)
	err := d.guest.QMP.Execute(d.ctx, qmp.Command{Execute: "system_reset"}, nil)
	if err != nil {
		return err
	}
	if d.guest.Hello, err = d.guest.Agent.WaitBoot(d.ctx, before); err != nil {
		return err
	}
	if err := d.findDevice(); err != nil {
		return err
	}
	if err := d.expectPCR(zeroPCR, "is reset"); err != nil {
		return err
	}
	return d.expectNV("is kept")
}

func powerCycle(d *demo) error {
	d.out.command("guest#", "poweroff")
	if err := d.guest.Agent.Poweroff(d.ctx); err != nil {
		return err
	}
	if err := d.guest.Wait(d.ctx); err != nil {
		return err
	}
	d.out.command("host$", "kill vhost-user-vtpm")
	if err := d.backend.Close(); err != nil {
		return err
	}
	if err := d.powerOn(); err != nil {
		return err
	}
	if err := d.expectPCR(zeroPCR, "starts from zero"); err != nil {
		return err
	}
	return d.expectNV("is kept")
}
