// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"encoding/hex"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/guest/attester/guesttest"
	"hwvtpm/guest/lab"
	"hwvtpm/vtpm/attest"
	"hwvtpm/vtpm/door"
)

// A machine enrols and attests through a virtio-serial port, which nobody has opened
// on the host before: first through one that still has half a message of the life
// before, in which the machine was reset.
func TestAttestThroughSerialPort(t *testing.T) {
	b := newBed(t)
	socket := b.MonitorPath() // a name, for the port's
	e := &emulated{machine: b.startEmulator(), qemu: b.Env.QEMU(), model: "tpm-crb"}
	e.power(lab.VMOptions{
		Image: b.imageWith("6.12", nil, map[string]string{"bin/vtpm-guest": b.Env.Program("vtpm-guest")}),
		Extra: []string{"-chardev", "socket,id=door,server=on,wait=off,path=" + socket, "-device", "virtio-serial",
			"-device", "virtserialport,chardev=door,name=org.hwvtpm.door.0"},
	})
	tpm := e.tpm()
	ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.ECCEKTemplate)}.Execute(tpm)
	b.must("making the EK", err)
	public, err := ek.OutPublic.Contents()
	b.must("the EK", err)
	_, err = tpm2.FlushContext{FlushHandle: ek.ObjectHandle}.Execute(tpm)
	b.must("flushing the EK", err)
	host := guesttest.NewHost(t, *public)
	e.listen(socket, host)

	e.attest(host)
	e.sh(`printf '\n{"id":"a","op":"enrol","body":{"name":"vm-1","ak-public":"' > /dev/vport0p1`)
	_, err = e.guest.Agent.Reboot(b.ctx)
	b.must("rebooting", err)
	e.awaitDriver()
	e.attest(host)
	e.quit()
}

// listen opens the host's end of the machine's port.
func (e *emulated) listen(socket string, host *guesttest.Host) {
	conn, err := net.Dial("unix", socket)
	e.must("the machine's port", err)
	done := make(chan error)
	go func() { done <- door.Serve(e.ctx, conn, door.Caller{VM: guesttest.VM, UID: -1}, host) }()
	e.Cleanup(func() {
		conn.Close()
		if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) {
			e.Errorf("the machine's port: %v", err)
		}
	})
}

// attest enrols the machine, whose folder a restart has emptied, and judges what it
// answers.
func (e *emulated) attest(host *guesttest.Host) {
	e.Helper()
	const way = " --via serial:/dev/vport0p1"
	nonce := []byte("a nonce of the verifier, 32 long")
	e.sh("vtpm-guest enrol" + way)
	out := e.sh("vtpm-guest attest --nonce " + hex.EncodeToString(nonce) + way)
	ev, err := attest.Parse([]byte(out))
	e.must("evidence", err)
	if vm, err := attest.CheckMachine(&ev.VM, nonce, host.Authority.Roots(), time.Now()); vm != guesttest.VM || err != nil {
		e.Errorf("evidence of %q: %v", vm, err)
	}
}

// The tests of vsock, in a kernel that has its loopback.
func TestVsock(t *testing.T) {
	b := newBed(t)
	program := filepath.Join(b.TempDir(), "vsocktest")
	cmd := exec.CommandContext(b.ctx, "go", "test", "-c", "-tags", "vsock_loopback", "-o", program, "./vtpm/door/vsock")
	cmd.Dir, cmd.Env = b.Env.Top, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("building the tests of vsock: %v\n%s", err, out)
	}
	modules := []string{"net/vmw_vsock/vsock", "net/vmw_vsock/vmw_vsock_virtio_transport_common", "net/vmw_vsock/vsock_loopback"}
	guest, err := b.Boot(b.ctx, lab.VMOptions{Image: b.imageWith("6.12", modules, map[string]string{"bin/vsocktest": program})})
	b.must("booting", err)
	r, err := guest.Agent.Run(b.ctx, "/bin/vsocktest", "-test.v")
	b.must("running the tests of vsock", err)
	results := testResults(string(r.Stdout))
	for _, res := range results {
		b.Run(res.name, func(t *testing.T) {
			if res.verdict == "SKIP" {
				t.Errorf("skipped where nothing is missing: %s", res.output)
			}
			res.report(t)
		})
	}
	if len(results) == 0 || r.ExitCode != 0 {
		b.Errorf("the tests of vsock ended with %d: %s%s", r.ExitCode, r.Stderr, r.Stdout)
	}
	b.must("powering off", guest.Agent.Poweroff(b.ctx))
	b.must("QEMU", guest.Wait(b.ctx))
}
