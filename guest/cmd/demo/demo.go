// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"hwvtpm/guest/lab"
)

// demo is the state that steps hand on.
type demo struct {
	ctx     context.Context
	rig     *lab.Rig
	out     *transcript
	backend *lab.Backend
	guest   *lab.Guest
	virtio  string // the device's name on the guest's virtio bus
	pcr     string // the measured PCR's value, in hex
}

// sh runs a command line in the guest, shows it, and fails if it fails.
func (d *demo) sh(line string) (string, error) {
	d.out.command("guest#", line)
	r, err := d.guest.Agent.Run(d.ctx, "gosh", "-c", line)
	if err != nil {
		return "", err
	}
	d.out.output(string(r.Stdout))
	if err := r.Err(); err != nil {
		return "", err
	}
	return string(r.Stdout), nil
}

// host runs a program on the host, in a folder, and shows it.
func (d *demo) host(dir string, argv ...string) (string, error) {
	d.out.command("host$", strings.Join(argv, " "))
	cmd := exec.CommandContext(d.ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	d.out.output(string(out))
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// powerOn starts a backend on the rig's state, and a machine with it.
func (d *demo) powerOn() (err error) {
	monitor := d.rig.MonitorPath()
	if d.backend, err = d.rig.StartBackend(d.ctx, lab.BackendOptions{QMP: monitor}); err != nil {
		return err
	}
	d.out.command("host$", "vhost-user-vtpm --socket-path S --coproc sim:STATE --qmp M &")
	d.out.command("host$", "qemu-system-x86_64 -chardev socket,id=c,path=S -device vhost-user-test-device-pci,chardev=c,virtio-id=38,num_vqs=1,config_size=8 -qmp unix:M,server=on ... &")
	d.guest, err = d.rig.Boot(d.ctx, lab.VMOptions{
		Name:    fmt.Sprintf("vm-step%d", d.out.steps),
		Monitor: monitor,
		Tools:   true,
		TPM:     lab.VirtioTPM{Backend: d.backend},
	})
	if err != nil {
		return err
	}
	d.out.output("guest is up: Linux " + d.guest.Hello.Kernel)
	return d.findDevice()
}

// findDevice learns the TPM's name on the guest's virtio bus.
func (d *demo) findDevice() error {
	devices, err := d.guest.Agent.Devices(d.ctx)
	if err != nil {
		return err
	}
	for _, dev := range devices {
		if dev.ID == 38 && dev.Driver == "tpm_virtio" {
			d.virtio = dev.Name
			return nil
		}
	}
	return fmt.Errorf("no device with virtio id 38 is bound to tpm_virtio: %+v", devices)
}

// readPCR reads the measured PCR by tpm2-tools and returns it in hex.
func (d *demo) readPCR() (string, error) {
	out, err := d.sh("tpm2_pcrread sha256:" + measured)
	if err != nil {
		return "", err
	}
	_, value, ok := strings.Cut(out, "0x")
	if !ok {
		return "", fmt.Errorf("no PCR value in %q", out)
	}
	return strings.ToLower(strings.TrimSpace(value)), nil
}

// expectPCR checks the measured PCR.
func (d *demo) expectPCR(want, meaning string) error {
	got, err := d.readPCR()
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("PCR %s is %s, want %s", measured, got, want)
	}
	d.out.held("PCR %s %s", measured, meaning)
	return nil
}

// expectNV checks the NV index.
func (d *demo) expectNV(meaning string) error {
	out, err := d.sh("tpm2_nvread -C o " + nvIndex)
	if err != nil {
		return err
	}
	if out != nvText {
		return fmt.Errorf("NV index %s holds %q, want %q", nvIndex, out, nvText)
	}
	d.out.held("NV index %s %s", nvIndex, meaning)
	return nil
}

// fetchFiles copies files of the guest into a folder of the host.
func (d *demo) fetchFiles(dir string, names ...string) error {
	for _, name := range names {
		data, err := d.guest.Agent.ReadFile(d.ctx, "/tmp/"+name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
