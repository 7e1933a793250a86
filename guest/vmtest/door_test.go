// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"encoding/hex"
	"errors"
	"net"
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
