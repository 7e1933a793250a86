// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hwvtpm/guest/agent"
	"hwvtpm/guest/lab"
	"hwvtpm/qmp"
)

var update = flag.Bool("update", false, "store the recorded conversations in vhostuser/testdata")

// What vhostuser's golden test replays is still what QEMU says.
func TestConversationIsAsRecorded(t *testing.T) {
	for name, packed := range map[string]bool{"split": false, "packed": true} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			version, got := recordLife(b, variant{"both", packed})
			testdata := filepath.Join(b.Env.Top, "vhostuser/testdata")
			if *update {
				got = "# The life of a device in QEMU " + version + "; see README.md.\n" + got
				if err := os.WriteFile(filepath.Join(testdata, "qemu-"+version+"-"+name+".hex"), []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(filepath.Join(testdata, "qemu-11.1.3-"+name+".hex"))
			if err != nil {
				t.Fatal(err)
			}
			diff := cmp.Diff(outline(string(want)), outline(got))
			if version != "11.1.3" {
				t.Logf("QEMU %s against 11.1.3:\n%s", version, diff)
			} else if diff != "" {
				t.Errorf("the conversation differs from the recorded one, which -update replaces:\n%s", diff)
			}
		})
	}
}

// recordLife takes a device through all that happens to one.
func recordLife(b *bed, v variant) (version, conversation string) {
	b.Helper()
	m := &machine{bed: b, variant: v, monitor: b.MonitorPath()}
	m.startBackend()
	r := b.startRelay(m.backend.Socket)
	r.note("realize; the driver starts")
	m.boot(lab.VMOptions{TPM: lab.VirtioTPM{Backend: &lab.Backend{Socket: r.Socket}}})
	device := agent.BindArgs{Device: m.awaitTPM().Name, Driver: "tpm_virtio"}
	m.checkFeatures(m.awaitTPM())
	want := m.extend("through the relay")

	r.note("driver unbind")
	m.must("unbind", m.guest.Agent.Call(m.ctx, agent.OpDriverUnbind, device, nil))
	r.note("driver bind")
	m.must("bind", m.guest.Agent.Call(m.ctx, agent.OpDriverBind, device, nil))
	m.awaitTPM()
	m.wantPCR("unbind and bind", want)

	r.note("stop")
	m.must("stop", m.guest.QMP.Stop(m.ctx))
	r.note("cont")
	m.must("cont", m.guest.QMP.Cont(m.ctx))
	m.wantPCR("stop and cont", want)

	r.note("system_reset; the next kernel's driver starts")
	m.reset()
	m.awaitTPM()
	m.wantPCR("system_reset", digest{})

	var q struct {
		QEMU struct{ Major, Minor, Micro int }
	}
	m.must("query-version", m.guest.QMP.Execute(m.ctx, qmp.Command{Execute: "query-version"}, &q))
	r.note("quit")
	m.must("quit", m.guest.QMP.Execute(m.ctx, qmp.Command{Execute: "quit"}, nil))
	m.must("QEMU's end", m.guest.Wait(m.ctx))
	m.must("the relay", <-r.done)
	return fmt.Sprintf("%d.%d.%d", q.QEMU.Major, q.QEMU.Minor, q.QEMU.Micro), r.conversation()
}

// outline leaves of each message what is the same in every run: direction,
// request, flags and size, kinds of descriptors and the name. Addresses,
// and how far the guest had come, are not.
func outline(conversation string) []string {
	var lines []string
	for line := range strings.Lines(conversation) {
		words := strings.Fields(line)
		if len(words) < 4 || words[0] != ">" && words[0] != "<" {
			continue
		}
		short := words[:4:4]
		if i := strings.IndexAny(line, "+#"); i >= 0 {
			short = append(short, strings.Fields(line[i:])...)
		}
		lines = append(lines, strings.Join(short, " "))
	}
	return lines
}
