// SPDX-License-Identifier: Apache-2.0

// Mkman makes the manual pages of the programs from what they print for --help,
// so that both say the same.
//
//	mkman -programs DIR -out DIR
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// page is what the help of a program does not say of it.
type page struct {
	program string
	section int
	title   string // after the name, as whatis shows it
	files   [][2]string
	seeAlso string
	names   []string // of a program with several: words before its flags
	exit    string   // if no help says so
}

var pages = []page{
	{program: "vhost-user-vtpm", section: 1, title: "give a virtual machine a TPM 2.0", files: [][2]string{
		{"/etc/hwvtpm/vm/SLOT.env", "VTPM_FLAGS and VTPM_FACE of vhost-user-vtpm@SLOT.service"},
		{"/run/hwvtpm/vm/SLOT", "sockets of that service"},
	}, seeAlso: "coprocd(8), vtpmctl(1), hwvtpm-libvirt-hook(8)"},
	{program: "vtpmctl", section: 1, title: "manage the slots of a TPM coprocessor", files: [][2]string{
		{"/run/hwvtpm/coprocd.sock", "the daemon"},
		{"/var/lib/hwvtpm/keys", "access keys of slots that root has made"},
	}, seeAlso: "coprocd(8), vhost-user-vtpm(1)"},
	{program: "coprocd", section: 8, title: "simulated coprocessor with TPMs in its slots", files: [][2]string{
		{"/etc/hwvtpm/coprocd.env", "COPROCD_FLAGS of coprocd.service"},
		{"/var/lib/hwvtpm/card", "the store of coprocd.service"},
		{"/run/hwvtpm/coprocd.sock", "its socket"},
	}, seeAlso: "vtpmctl(1), vhost-user-vtpm(1), vtpm-hostd(8)"},
	{program: "vtpm-hostd", section: 8, title: "tie a host's TPM coprocessor to the host's TPM", files: [][2]string{
		{"/etc/hwvtpm/hostd.env", "HOSTD_FLAGS of vtpm-hostd.service"},
		{"/var/lib/hwvtpm/hostd", "attestation key, certificates and TLS key"},
		{"/run/hwvtpm/hostd.sock", "the operators' door"},
		{"/run/hwvtpm/guests/NAME.sock", "the doors of guests"},
	}, seeAlso: "vtpmctl(1), coprocd(8), vhost-user-vtpm(1), vtpm-control(8), vtpm-guest(8)"},
	{program: "vtpm-control", section: 8, title: "authority of hosts and vTPMs", files: [][2]string{
		{"/etc/hwvtpm/control.env", "CONTROL_FLAGS of vtpm-control.service"},
		{"/var/lib/hwvtpm/control", "keys, certificates, records, audit log"},
		{"/var/lib/hwvtpm/control/manufacturers", "certificates of makers of TPMs, put there by the operator"},
	}, seeAlso: "vtpm-hostd(8), vtpm-guest(8), vtpmctl(1)"},
	{program: "vtpm-guest", section: 8, title: "attest a virtual machine by its vTPM", files: [][2]string{
		{"/etc/hwvtpm/guest.env", "GUEST_FLAGS of vtpm-guest-enrol.service, which vtpm-guest-enrol.timer starts each hour to renew the certificate if it is due"},
		{"/var/lib/hwvtpm-guest", "the attestation key, of use in this vTPM only, and its certificate"},
	}, seeAlso: "vtpm-control(8), vtpm-hostd(8), vtpmctl(1)"},
	{program: "hwvtpm-swtpm", section: 8, title: "swtpm's command line over the slots of a coprocessor", files: [][2]string{
		{"/etc/hwvtpm/swtpm.conf", "where coprocd is"},
		{"libexec/hwvtpm/swtpm-compat", "the three names, for a PATH that libvirt is given"},
	}, seeAlso: "vhost-user-vtpm(1), coprocd(8), swtpm(8)",
		names: []string{"swtpm", "swtpm socket", "swtpm_setup", "swtpm_ioctl"},
		exit:  "0 done; 1 failure."},
	{program: "hwvtpm-libvirt-hook", section: 8, title: "start and stop the vTPMs of libvirt domains", files: [][2]string{
		{"/etc/libvirt/hooks/qemu.d/hwvtpm", "what libvirt runs; flags are set there"},
		{"/run/hwvtpm/vm/SLOT", "sockets of a machine and its backend"},
	}, seeAlso: "vhost-user-vtpm(1), vtpmctl(1), virsh(1)"},
}

func main() {
	programs := flag.String("programs", "", "folder of the programs")
	out := flag.String("out", "", "folder of the pages")
	flag.Parse()
	if err := run(*programs, *out); err != nil {
		fmt.Fprintln(os.Stderr, "mkman:", err)
		os.Exit(1)
	}
}

func run(programs, out string) error {
	if programs == "" || out == "" {
		return errors.New("give -programs and -out")
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, p := range pages {
		text, err := p.ask(programs)
		if err != nil {
			return err
		}
		name := filepath.Join(out, fmt.Sprintf("%s.%d", p.program, p.section))
		if err := os.WriteFile(name, []byte(p.render(text)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// ask has a program tell its help, under each of its names.
func (p page) ask(programs string) ([]string, error) {
	names := p.names
	if len(names) == 0 {
		names = []string{""}
	}
	var all []string
	for _, n := range names {
		help, err := exec.Command(filepath.Join(programs, p.program), append(strings.Fields(n), "--help")...).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%s %s --help: %w: %s", p.program, n, err, help)
		}
		all = append(all, string(help))
	}
	return all, nil
}

// render makes the page of the program's helps, one for each of its names.
func (p page) render(helps []string) string {
	var w writer
	w.line(".TH %s %d \"\" hwvtpm", strings.ToUpper(p.program), p.section)
	w.line(".SH NAME\n%s \\- %s", escape(p.program), escape(p.title))
	for i, help := range helps {
		if i > 0 {
			w.line(".SH %s", strings.ToUpper(escape(p.names[i])))
		}
		for _, b := range parse(help) {
			w.block(b, i > 0)
		}
	}
	if p.exit != "" {
		w.line(".SH EXIT STATUS\n%s", escape(p.exit))
	}
	if len(p.files) > 0 {
		w.line(".SH FILES")
	}
	for _, f := range p.files {
		w.item(item{term: f[0], text: []string{f[1]}})
	}
	w.line(".SH SEE ALSO\n%s", escape(p.seeAlso))
	return w.String()
}
