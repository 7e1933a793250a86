// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"path/filepath"
	"text/template"

	"hwvtpm/qmp"
	"hwvtpm/vtpm"
)

// Names by which QEMU's monitor knows the parts of the device.
const (
	deviceID  = "hwvtpm0"
	chardevID = "hwvtpm-socket"
	portID    = "hwvtpm-port"
	driver    = "vhost-user-test-device-pci"
)

// Sockets in the folder of a slot.
const (
	socketName  = "vtpm.sock"    // of the backend
	monitorName = "qmp.sock"     // of QEMU, for the backend alone
	controlName = "control.sock" // of QEMU, for recover
)

func (c config) path(name string) string {
	return filepath.Join(c.runDir, "vm", c.slot, name)
}

// device is what QEMU has to be told of the device.
func (c config) device() qmp.VhostUserSpec {
	return qmp.VhostUserSpec{
		DeviceID: deviceID, ChardevID: chardevID, Socket: c.path(socketName),
		Device: map[string]any{
			"driver": driver, "bus": portID, "virtio-id": vtpm.DefaultVirtioID, "num_vqs": 1, "config_size": vtpm.ConfigSize,
		},
	}
}

// qemuArgs are QEMU's arguments for the virtio face. The root port makes the
// device pluggable, as recovery needs; libvirt gives out addresses from low to
// high, and chassis numbers too.
func (c config) qemuArgs() []string {
	d := c.device()
	monitor := func(id, name string) []string {
		return []string{
			"-chardev", fmt.Sprintf("socket,id=%s,path=%s,server=on,wait=off", id, c.path(name)),
			"-mon", "chardev=" + id + ",mode=control",
		}
	}
	args := append(monitor("hwvtpm-resets", monitorName), monitor("hwvtpm-control", controlName)...)
	return append(args,
		"-chardev", fmt.Sprintf("socket,id=%s,path=%s", d.ChardevID, d.Socket),
		"-device", "pcie-root-port,id="+portID+",bus=pcie.0,addr=0x18,chassis=248",
		"-device", fmt.Sprintf("%s,id=%s,chardev=%s,bus=%s,virtio-id=%d,num_vqs=1,config_size=%d",
			driver, d.DeviceID, d.ChardevID, portID, vtpm.DefaultVirtioID, vtpm.ConfigSize))
}

var fragments = template.Must(template.New("domain").Parse(`<domain{{if .Args}} xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'{{end}}>
  <metadata>
    <hwvtpm:vtpm xmlns:hwvtpm='{{.Namespace}}' slot='{{.Slot}}'{{if not .Args}} face='emulator'{{end}}/>
  </metadata>
{{- if .Args}}
  <memoryBacking>
    <source type='memfd'/>
    <access mode='shared'/>
  </memoryBacking>
  <qemu:commandline>
{{- range .Args}}
    <qemu:arg value='{{.}}'/>
{{- end}}
  </qemu:commandline>
{{- else}}
  <devices>
    <tpm model='tpm-crb'>
      <backend type='external'>
        <source type='unix' mode='connect' path='{{.Socket}}'/>
      </backend>
    </tpm>
  </devices>
{{- end}}
</domain>
`))

// printXML prints a domain that has nothing but what the vTPM needs. The names in
// it need no quoting: a slot's has letters, digits, dots, dashes and underscores.
func (c config) printXML(w io.Writer) error {
	var args []string
	if c.face == faceVirtio {
		args = c.qemuArgs()
	}
	return fragments.Execute(w, map[string]any{
		"Namespace": namespace, "Slot": c.slot, "Socket": c.path(socketName), "Args": args,
	})
}
