// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hwvtpm/guest/lab"
)

const guestLog = "/sys/kernel/security/tpm0/binary_bios_measurements"

// What OVMF measures into this project's TPM on stock QEMU is what its event log
// says, and a quote of the TPM confirms it, at each boot. TestStockMachines looks
// at SeaBIOS in the same way.
func TestOVMFMeasures(t *testing.T) {
	m := newBed(t).startEmulator()
	e := &emulated{machine: m, qemu: m.Env.StockQEMU(), model: "tpm-crb"}
	e.power(lab.VMOptions{Extra: m.pflash()})
	if got := e.sh("ls /sys/firmware"); !strings.Contains(got, "efi") {
		t.Fatalf("/sys/firmware has %q: the guest was not started by UEFI", got)
	}
	first := e.checkLog()
	e.checkQuote(first)
	e.record(first)
	e.reset()
	e.awaitDriver()
	if again := e.checkLog(); again.pcrs != first.pcrs {
		t.Errorf("the same machine measures the second time\n%s\nand the first time\n%s", formatPCRs(again.pcrs), formatPCRs(first.pcrs))
	}
}

// pflash are OVMF and a copy of its variables.
func (b *bed) pflash() []string {
	b.Helper()
	code, fresh := b.Env.OVMF()
	variables, err := os.ReadFile(fresh)
	b.must("OVMF's variables", err)
	own := filepath.Join(b.TempDir(), "vars.fd")
	b.must("copying OVMF's variables", os.WriteFile(own, variables, 0o600))
	return []string{
		"-drive", "if=pflash,format=raw,readonly=on,file=" + code,
		"-drive", "if=pflash,format=raw,file=" + own,
	}
}

// measurement is an event log with the PCRs it leads to.
type measurement struct {
	log  []byte
	pcrs [firmwarePCRs]digest
}

// checkLog replays the guest's event log, compares with the guest's PCRs, and has
// tpm2-tools do the same sum.
func (e *emulated) checkLog() measurement {
	e.Helper()
	e.sh("mkdir -p /sys/kernel/security; mount -t securityfs securityfs /sys/kernel/security || true")
	log, err := e.guest.Agent.ReadFile(e.ctx, guestLog)
	e.must("reading the event log", err)
	pcrs, events, err := replay(log)
	e.must("replaying the event log", err)
	if events < firmwarePCRs {
		e.Errorf("the firmware measured %d events", events)
	}
	values, err := e.guest.Agent.PCRRead(e.ctx, "sha256", 0, 1, 2, 3, 4, 5, 6, 7)
	e.must("reading PCRs", err)
	for i := range firmwarePCRs {
		if pcrs[i] == (digest{}) {
			e.Errorf("nothing was measured into PCR %d", i)
		}
		if got := digest(values[i]); got != pcrs[i] {
			e.Errorf("PCR %d is %x, the log leads to %x", i, got, pcrs[i])
		}
	}
	e.checkWithTools(log, pcrs)
	return measurement{log, pcrs}
}

// checkQuote has the TPM say what the log says.
func (e *emulated) checkQuote(m measurement) {
	e.Helper()
	var all []byte
	for _, v := range m.pcrs {
		all = append(all, v[:]...)
	}
	if quoted, want := e.quote(), sha256.Sum256(all); !bytes.HasSuffix(quoted, want[:]) {
		e.Errorf("the quote % x does not end with the digest of PCRs 0 to 7, %x", quoted, want)
	}
}

// quote has the TPM quote PCRs 0 to 7, checks its signature, and returns the
// TPMS_ATTEST, whose last field is the digest of the PCRs.
func (e *emulated) quote() []byte {
	e.Helper()
	const nonce = "00112233445566778899"
	e.sh("tpm2_createprimary -Q -C e -G ecc256:ecdsa-sha256:null -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign' -c /ak.ctx" +
		" && tpm2_readpublic -Q -c /ak.ctx -f pem -o /ak.pem" +
		" && tpm2_quote -Q -c /ak.ctx -l sha256:0,1,2,3,4,5,6,7 -q " + nonce + " -m /quote -s /signature -g sha256" +
		" && tpm2_checkquote -Q -u /ak.pem -m /quote -s /signature -q " + nonce + " -g sha256")
	quoted, err := e.guest.Agent.ReadFile(e.ctx, "/quote")
	e.must("reading the quote", err)
	return quoted
}

// checkWithTools has tpm2_eventlog of the host replay the log.
func (e *emulated) checkWithTools(log []byte, pcrs [firmwarePCRs]digest) {
	e.Helper()
	_, sums, _ := strings.Cut(e.host("tpm2_eventlog", e.keep("log", log)), "\npcrs:")
	_, sums, _ = strings.Cut(sums, "sha256:")
	for i, v := range pcrs {
		if !strings.Contains(sums, fmt.Sprintf("\n    %-2d : 0x%x\n", i, v)) {
			e.Errorf("tpm2_eventlog does not have PCR %d as %x in:\n%s", i, v, sums)
		}
	}
}

// record stores the test vector of TestRecordedLogReplays with -update.
func (e *emulated) record(m measurement) {
	e.Helper()
	if !*update {
		return
	}
	dir := filepath.Join(e.Env.Top, "guest/vmtest/testdata")
	e.must("testdata", os.MkdirAll(dir, 0o755))
	e.must("storing the log", os.WriteFile(filepath.Join(dir, "ovmf-eventlog.bin"), m.log, 0o644))
	e.must("storing the PCRs", os.WriteFile(filepath.Join(dir, "ovmf-eventlog.pcrs"), []byte(formatPCRs(m.pcrs)), 0o644))
}
