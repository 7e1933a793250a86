// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"fmt"
	"maps"

	"hwvtpm/qmp"
)

// Names by which QMP commands reach the parts of the virtio TPM.
const (
	DeviceID  = "vtpm0"
	ChardevID = "vtpm-chr"
	slotBus   = "slot1" // the root port, so that the device can be unplugged
)

// TPM is a virtual machine's TPM as QEMU's command line puts it.
type TPM interface {
	args() ([]string, error)
}

// VirtioTPM is the TPM behind a vhost-user backend.
type VirtioTPM struct {
	Backend *Backend
	Props   map[string]any // further properties of QEMU's device
}

// properties are those of -device and device_add, but for id and chardev.
func (t VirtioTPM) properties() map[string]any {
	props := map[string]any{
		"driver":      "vhost-user-test-device-pci",
		"bus":         slotBus,
		"virtio-id":   38,
		"num_vqs":     1,
		"config_size": 8,
	}
	maps.Copy(props, t.Props)
	return props
}

func (t VirtioTPM) args() ([]string, error) {
	props := t.properties()
	props["id"], props["chardev"] = DeviceID, ChardevID
	device, err := json.Marshal(props)
	if err != nil {
		return nil, fmt.Errorf("lab: properties of the device: %w", err)
	}
	return []string{
		"-chardev", "socket,id=" + ChardevID + ",path=" + t.Backend.Socket,
		"-device", string(device),
	}, nil
}

// Spec is what the client's ReplaceVhostUser needs to put this TPM in the place
// of one whose backend died.
func (t VirtioTPM) Spec() qmp.VhostUserSpec {
	return qmp.VhostUserSpec{DeviceID: DeviceID, ChardevID: ChardevID, Socket: t.Backend.Socket, Device: t.properties()}
}

// EmulatorTPM is one of QEMU's own TPM devices, with a swtpm or a backend behind
// it.
type EmulatorTPM struct {
	Swtpm   *Swtpm
	Backend *Backend // instead of Swtpm; started with BackendOptions.Emulator
	Model   string   // tpm-crb or tpm-tis
}

func (t EmulatorTPM) args() ([]string, error) {
	var socket string
	if t.Backend != nil {
		socket = t.Backend.Socket
	} else {
		socket = t.Swtpm.Socket
	}
	return []string{
		"-chardev", "socket,id=chrtpm,path=" + socket,
		"-tpmdev", "emulator,id=tpm0,chardev=chrtpm",
		"-device", t.Model + ",tpmdev=tpm0",
	}, nil
}
