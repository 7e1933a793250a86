// SPDX-License-Identifier: Apache-2.0

package virt

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"
)

// qcow2 is an empty disk of 1 MiB (QEMU's docs/interop/qcow2.rst): header, refcount
// table, refcount block, L1 table, each in a cluster of 64 KiB.
func qcow2() []byte {
	const cluster = 1 << 16
	disk := make([]byte, 4*cluster)
	be := binary.BigEndian
	copy(disk, "QFI\xfb")
	be.PutUint32(disk[4:], 2)          // version
	be.PutUint32(disk[20:], 16)        // bits of a cluster
	be.PutUint64(disk[24:], 1<<20)     // size
	be.PutUint32(disk[36:], 1)         // entries of the L1 table
	be.PutUint64(disk[40:], 3*cluster) // L1 table
	be.PutUint64(disk[48:], cluster)   // refcount table
	be.PutUint32(disk[56:], 1)         // its clusters
	be.PutUint64(disk[cluster:], 2*cluster)
	for i := range 4 {
		be.PutUint16(disk[2*cluster+2*i:], 1)
	}
	return disk
}

const diskXML = `<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
      <source file='` + inside + `/run/disk.qcow2'/><target dev='vda' bus='virtio'/></disk>`

// errRolledBack is what libvirt passes on of QEMU, which has no words for it.
const errRolledBack = "TPM result for CMD_INIT: 0x9 operation failed"

// refused runs a command of virsh that must fail, and wants it to say so.
func (m *machine) refused(want string, args ...string) {
	m.Helper()
	out, err := m.Virsh(m.ctx, args...)
	if err == nil {
		m.Fatalf("virsh %q succeeded: %s", args, out)
	}
	if !strings.Contains(err.Error(), want) {
		m.Errorf("virsh %q does not say %q: %v", args, want, err)
	}
}

// older is how a machine is brought back to an older state.
type older struct {
	log    string // of the TPM, where the refusal is told in words
	act    string // that the log names as the operator's, to permit it
	permit func() // does that
}

// tooOld: the machine is not brought back, is off, and the log says what to do.
func (m *machine) tooOld(o older, args ...string) {
	m.Helper()
	before, err := os.ReadFile(m.Path(o.log))
	m.must("reading the TPM's log", err)
	m.refused(errRolledBack, args...)
	m.hangUp()
	after, err := os.ReadFile(m.Path(o.log))
	m.must("reading the TPM's log", err)
	news := string(after[len(before):])
	for _, want := range []string{"the slot was used since this state was saved", o.act} {
		if !strings.Contains(news, want) {
			m.Errorf("the log does not say %q, but\n%s", want, news)
		}
	}
	if state := m.virsh("domstate"); state != "shut off" {
		m.Errorf("after a state that is too old the domain is %q", state)
	}
}

// goBack saves a machine that is off and full, and restores it: at once, after its
// TPM was used, and again with permission.
func (m *machine) goBack(o older) {
	m.Helper()
	const file = inside + "/run/vm.saved"
	m.start()
	want := m.touch()
	m.virsh("save", file)
	m.hangUp()
	m.restore(file)
	m.wantLast("save and restore", want)
	m.writeNV(newer)
	m.destroy()

	m.tooOld(o, "restore", file)
	m.start() // the present state is as it was
	m.wantNV("a refused restore", newer)
	m.wantPCR("a refused restore", digest{})
	m.destroy()
	o.permit()
	m.restore(file)
	m.wantLast("a permitted restore of an older state", want)
	m.destroy()
	m.tooOld(o, "restore", file) // the permission was for once
}

// newer is what NV holds after what fill has put there.
const newer = "not by snapshot"

func (m *machine) restore(file string) {
	m.Helper()
	_, err := m.Virsh(m.ctx, "restore", file)
	m.must("restoring", err)
	m.meet()
}

// adopt permits an older state of the slot.
func (m *machine) adopt() {
	m.Helper()
	_, err := m.Vtpmctl(m.ctx, "slot", "adopt", m.slot, "--restore", "--reason", "back to the snapshot")
	m.must("permitting an older state", err)
}

// A snapshot holds the TPM as it was. To go back to it is always to an older state,
// since QEMU resets the machine first.
func TestSnapshots(t *testing.T) {
	m := newMachine(t, Domain{Name: "vm", QEMU: StockQEMU, TPM: emulatorXML, Disk: diskXML})
	m.must("making a disk", os.WriteFile(m.Path("run/disk.qcow2"), qcow2(), 0o666))
	m.slot = m.virsh("domuuid")
	o := older{log: swtpmLog, act: "vtpmctl slot adopt NAME --restore", permit: m.adopt}

	m.start()
	m.fill()
	want := m.touch()
	m.virsh("snapshot-create-as", "internal")
	m.wantLast("a snapshot", want)
	m.writeNV(newer)
	m.tooOld(o, "snapshot-revert", m.name, "internal")
	o.permit()
	m.virsh("snapshot-revert", "internal")
	m.meet()
	m.wantLast("going back to a snapshot", want)

	memory := inside + "/run/vm.memory"
	m.virsh("snapshot-create-as", "external", "--memspec", "file="+memory+",snapshot=external",
		"--diskspec", "vda,snapshot=external,file="+inside+"/run/overlay.qcow2")
	m.refused("revert to external snapshot not supported yet", "snapshot-revert", m.name, "external")
	m.wantLast("an external snapshot", want)
	m.writeNV(newer)
	m.destroy()
	m.tooOld(o, "restore", memory)
	o.permit()
	m.restore(memory)
	m.wantLast("restoring an external snapshot", want)
	m.destroy()
}
