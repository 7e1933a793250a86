// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"hwvtpm/coproc/coproctest/swtpmtest"
	"hwvtpm/guest/agent"
	"hwvtpm/guest/image"
	"hwvtpm/guest/lab"
	"hwvtpm/vtpm/attest"
	"hwvtpm/vtpm/door"
)

// A machine that is a host: OVMF measures its start into a TPM with its maker's
// certificates, its coprocessor is sealed to that TPM, and a vTPM in it proves by one
// answer what it is, where it is, and how the host has started. Only the silicon is made up.
func TestDeepAttestationOnAHostOfItsOwn(t *testing.T) {
	b := newBed(t)
	h, maker := b.startHost()
	const dir = "/tmp/cloud"
	h.sh("mkdir -p /tmp /run /sys/kernel/security; mount -t tmpfs tmpfs /tmp; mount -t securityfs securityfs /sys/kernel/security || true" +
		"; mkdir " + dir)
	c := b.startCloud(inside{h.machine, dir}, dir, maker, 8443)
	c.daemon("coprocd", "--store", c.path("card"), "--socket", c.path("coprocd.sock"), "--host-tpm", "device:/dev/tpmrm0")
	c.startHostd(c.path("coprocd.sock"), "device:/dev/tpmrm0", guestLog)
	c.await("the card", "coprocd", func() error {
		_, err := c.run("vtpmctl", "--socket", c.path("coprocd.sock"), "card")
		return err
	})
	c.await("the card's certificate", "vtpm-hostd", func() error {
		out, err := c.run("vtpmctl", "--json", "host", "--hostd", c.path("hostd.sock"))
		var s door.Status
		if err == nil {
			err = json.Unmarshal([]byte(out), &s)
		}
		if err == nil && s.CardAIK.Serial == "" {
			err = errors.New(out)
		}
		return err
	})

	// The certificates are made with the TPM, as swtpm_setup's are.
	const vm = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
	c.do("mkdir", "-p", "/etc/hwvtpm", c.path("vm"))
	settings := "socket = " + c.path("coprocd.sock") + "\nhostd = " + c.path("backend.sock") + "\nhost-pcrs = map\n"
	c.must("settings", c.write("/etc/hwvtpm/swtpm.conf", []byte(settings)))
	c.do("hwvtpm-swtpm", "swtpm_setup", "--tpm2", "--tpm-state", c.path("vm"), "--vmid", "vm:"+vm, "--createek")
	c.awaitCertified(vm)
	c.must("the vTPM", c.start("swtpm", "hwvtpm-swtpm", "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+c.path("vm"),
		"--server", "type=unixio,path="+c.path("tpm.sock"), "--flags", "not-need-init,startup-clear"))
	guest := func(command ...string) []string {
		return append(append([]string{"vtpm-guest"}, command...), "--tpm", "swtpm:"+c.path("tpm.sock"), "--dir", c.path("guest"))
	}
	via := "--via=unix:" + c.path("guests/"+vm+".sock")
	c.await("the vTPM", "swtpm", func() error {
		_, err := c.run(guest("show")...)
		return err
	})
	c.do(guest("enrol", via)...)
	nonce := newNonce()
	evidence := c.do(guest("attest", via, "--nonce", nonce)...)

	c.wantVerified([]byte(evidence), nonce, vm)
	c.wantJudged([]byte(evidence), nonce)
	values, err := h.guest.Agent.PCRRead(h.ctx, "sha256", 0, 1, 2, 3, 4, 5, 6, 7)
	h.must("reading the host's PCRs", err)
	c.wantPCRsOf([]byte(evidence), values)
}

// The same on this machine, with an ordinary guest in QEMU: its TPM is on virtio, and it
// has no network.
func TestDeepAttestationOfAGuest(t *testing.T) {
	b := newBed(t)
	dir := swtpmtest.Dir(t)
	maker, err := swtpmtest.Manufacture(dir)
	b.must("manufacturing the host's TPM", err)
	socket := b.serveTPM(dir)
	log := filepath.Join(b.Env.Top, "guest/vmtest/testdata/ovmf-eventlog.bin")
	b.measure(socket, log)
	c := b.startCloud(here{b}, b.Dir(), maker, freePort(t))
	card, err := b.StartCoprocd(b.ctx, "--host-tpm", "swtpm:"+socket)
	b.must("starting coprocd", err)
	c.startHostd(card.Socket, "swtpm:"+socket, log)
	c.awaitCertified(card.Slot)

	m := &machine{bed: b, variant: variant{"both", true}, monitor: b.MonitorPath(), coprocd: card}
	m.backend, err = b.StartBackend(b.ctx, lab.BackendOptions{QMP: m.monitor, Coprocd: card, Extra: []string{"--hostd", c.path("backend.sock")}})
	m.must("starting the backend", err)
	m.boot(lab.VMOptions{TPM: m.tpm(), Image: b.imageOf("vtpm-guest"), Extra: []string{
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=door,path=" + c.path("guests/"+card.Slot+".sock"),
		"-device", "virtserialport,chardev=door,name=org.hwvtpm.door.0",
	}})
	m.awaitTPM()
	const via = " --via serial:/dev/vport0p1 --dir /var/guest "
	m.sh("mkdir -p /var; vtpm-guest enrol" + via)
	nonce := newNonce()
	evidence := []byte(m.sh("vtpm-guest attest" + via + "--event-log none --nonce " + nonce))
	c.wantVerified(evidence, nonce, card.Slot)
	c.wantJudged(evidence, nonce)
	values, err := m.guest.Agent.PCRRead(m.ctx, "sha256", 0, 1, 2, 3, 4, 5, 6, 7)
	m.must("reading PCRs", err)
	c.wantPCRsOf(evidence, values)

	err = m.guest.Agent.PCRExtend(m.ctx, "sha256", 0, make([]byte, len(digest{})))
	if err == nil || !strings.Contains(err.Error(), "TPM_RC_LOCALITY") {
		t.Errorf("the guest extends a PCR of the host's: %v", err)
	}
	m.reset()
	m.awaitTPM()
	m.sh("mkdir -p /var; vtpm-guest enrol" + via) // its disk is in memory: another AIK
	again := []byte(m.sh("vtpm-guest attest" + via + "--event-log none --nonce " + nonce))
	c.wantVerified(again, nonce, card.Slot)
	c.wantRefused(evidence, nonce, attest.ClaimRevocation)
	c.wantRefused(again, newNonce(), attest.ClaimVMFresh)

	c.do("vtpm-control", "--dir", c.path("control"), "revoke", "host", hostName)
	c.wantRefused(again, nonce, attest.ClaimRevocation)
}

func newNonce() string {
	b := make([]byte, 32)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// freePort is one that nobody listened to a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// startHost boots a machine that is a host.
func (b *bed) startHost() (h *emulated, maker string) {
	b.Helper()
	dir := swtpmtest.Dir(b.T)
	maker, err := swtpmtest.Manufacture(dir)
	b.must("manufacturing the host's TPM", err)
	tpm, err := b.StartSwtpm(b.ctx, filepath.Join(dir, "tpm"))
	b.must("starting the host's TPM", err)
	m := &machine{bed: b}
	m.boot(lab.VMOptions{
		QEMU: b.Env.StockQEMU(), TPM: lab.EmulatorTPM{Swtpm: tpm, Model: "tpm-crb"}, MemoryMiB: 1024,
		Image: b.imageOf("coprocd", "hwvtpm-engine", "vtpmctl", "vtpm-control", "vtpm-hostd", "vtpm-guest", "hwvtpm-swtpm"),
		Extra: append(b.pflash(), "-cpu", "max,cx16=off"),
	})
	e := &emulated{machine: m}
	e.awaitDriver()
	return e, maker
}

// imageOf has programs of this project, with their libraries.
func (b *bed) imageOf(programs ...string) string {
	b.Helper()
	paths := map[string]string{}
	for _, name := range programs {
		paths["bin/"+name] = b.Env.Program(name)
	}
	files, err := image.Programs([]string{"/"}, paths)
	b.must("finding libraries", err)
	out := filepath.Join(b.TempDir(), "guest.cpio")
	_, err = image.Extend(out, b.Env.PlainImage(), image.Overlay{Files: files})
	b.must("building an image", err)
	return out
}

// serveTPM runs the TPM in dir/tpm for one program at a time, until the bed is gone.
func (b *bed) serveTPM(dir string) (socket string) {
	b.Helper()
	socket = filepath.Join(dir, "s")
	b.must("starting a TPM", b.Start("host-tpm", "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+filepath.Join(dir, "tpm"),
		"--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear"))
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return socket
		}
		b.must("waiting for the TPM", b.ctx.Err())
		time.Sleep(10 * time.Millisecond)
	}
}

// measure extends a TPM by a log, as the firmware did that wrote it.
func (b *bed) measure(socket, path string) {
	b.Helper()
	text, err := here{b}.read(path)
	b.must("reading the log", err)
	log, err := tcg.ParseEventLog(text, tcg.ParseOpts{AllowPadding: true})
	b.must("parsing the log", err)
	tpm, err := linuxudstpm.Open(socket)
	b.must("opening the TPM", err)
	defer tpm.Close()
	for _, e := range log.Events(register.HashSHA256) {
		if e.Type == tcg.NoAction {
			continue
		}
		_, err := tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(e.Index), Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: e.Digest}}},
		}.Execute(tpm)
		b.must("measuring", err)
	}
}

// verify has vtpmctl judge evidence, by the authority's root and its lists of now.
func (c *cloud) verify(evidence []byte, nonce string) attest.Result {
	c.Helper()
	c.must("keeping the evidence", c.write(c.path("evidence.json"), evidence))
	argv := []string{"vtpmctl", "--json", "verify", "--evidence", c.path("evidence.json"), "--nonce", nonce,
		"--roots", c.path("control/ca/root.pem")}
	for _, name := range []string{"root", "attestation"} {
		c.must("keeping a list", c.write(c.path(name+".crl"), []byte(c.do("vtpm-control", "--dir", c.path("control"), "crl", name))))
		argv = append(argv, "--crl", c.path(name+".crl"))
	}
	out, err := c.run(argv...)
	var res attest.Result
	if jsonErr := json.Unmarshal([]byte(out), &res); jsonErr != nil {
		c.Fatalf("vtpmctl verify: %v\n%s", err, out)
	}
	if res.OK != (err == nil) {
		c.Errorf("vtpmctl verify says %v and ends with %v", res.OK, err)
	}
	return res
}

// wantVerified checks that evidence holds, in every claim that is made of a mapped machine.
func (c *cloud) wantVerified(evidence []byte, nonce, vm string) {
	c.Helper()
	res := c.verify(evidence, nonce)
	if !res.OK || res.Machine != vm || res.Host != hostName {
		c.Errorf("evidence of %s on %s: %+v", vm, hostName, res)
	}
	for _, name := range []attest.Name{attest.ClaimRevocation, attest.ClaimEqual, attest.ClaimHostLog, attest.ClaimHealth, attest.ClaimHostFresh} {
		if claim := res.Get(name); claim.State != attest.Held {
			c.Errorf("claim %+v", claim)
		}
	}
}

func (c *cloud) wantRefused(evidence []byte, nonce string, why attest.Name) {
	c.Helper()
	if res := c.verify(evidence, nonce); res.OK || res.Get(why).State != attest.Failed {
		c.Errorf("evidence that fails by %s: %+v", why, res)
	}
}

// wantJudged has stock tools, here, judge what they can: the chains and both quotes.
func (c *cloud) wantJudged(evidence []byte, nonce string) {
	c.Helper()
	ev, err := attest.Parse(evidence)
	c.must("parsing the evidence", err)
	dir, judge := c.TempDir(), here{c.bed}
	keep := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		c.must("keeping "+name, judge.write(path, data))
		return path
	}
	do := func(argv ...string) {
		c.Helper()
		_, err := judge.run(argv...)
		c.must("judging", err)
	}
	trusted, err := c.read(c.path("control/ca/root.pem"))
	c.must("reading the root", err)
	root := keep("root.pem", trusted)
	vm, binding := keep("vm.pem", []byte(ev.VM.Chain)), keep("binding.pem", []byte(ev.Binding.Chain))
	do("openssl", "verify", "-CAfile", root, "-untrusted", vm, vm)
	// Openssl does not know the names of a TPM, which are critical.
	do("openssl", "verify", "-ignore_critical", "-CAfile", root, "-untrusted", binding, binding)
	asked, err := hex.DecodeString(nonce)
	c.must("the nonce", err)
	hostAsked := attest.HostNonce(asked, ev.VM.Quote.Attest)
	for _, layer := range []struct {
		name  string
		quote attest.Quote
		chain string
		leaf  int
		nonce string
	}{
		{"vm", ev.VM.Quote, ev.VM.Chain, 0, nonce},
		{"host", ev.Host.Quote, ev.Binding.Chain, 2, hex.EncodeToString(hostAsked[:])},
	} {
		key := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: c.certificate(layer.chain, layer.leaf).RawSubjectPublicKeyInfo})
		do("tpm2_checkquote", "-Q", "-u", keep(layer.name+".key", key), "-m", keep(layer.name+".msg", layer.quote.Attest),
			"-s", keep(layer.name+".sig", layer.quote.Signature), "-g", "sha256", "-q", layer.nonce)
	}
}

// certificate is one of a chain in PEM.
func (c *cloud) certificate(chain string, n int) *x509.Certificate {
	c.Helper()
	block, rest := pem.Decode([]byte(chain))
	for ; n > 0; n-- {
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		c.Fatalf("a chain is too short:\n%s", chain)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	c.must("parsing a certificate", err)
	return cert
}

// wantPCRsOf checks the values in evidence.
func (c *cloud) wantPCRsOf(evidence []byte, want agent.PCRs) {
	c.Helper()
	ev, err := attest.Parse(evidence)
	c.must("parsing the evidence", err)
	for pcr, value := range want {
		for _, layer := range []*attest.Layer{&ev.VM.Layer, ev.Host} {
			if got := layer.PCRs["sha256"][strconv.Itoa(pcr)]; !bytes.Equal(got, value) {
				c.Errorf("PCR %d in the evidence is %x, want %x", pcr, got, value)
			}
		}
	}
}
