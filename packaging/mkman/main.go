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
}

var pages = []page{
	{"vhost-user-vtpm", 1, "give a virtual machine a TPM 2.0", [][2]string{
		{"/etc/hwvtpm/vm/SLOT.env", "VTPM_FLAGS and VTPM_FACE of vhost-user-vtpm@SLOT.service"},
		{"/run/hwvtpm/vm/SLOT", "sockets of that service"},
	}, "coprocd(8), vtpmctl(1), hwvtpm-libvirt-hook(8)"},
	{"vtpmctl", 1, "manage the slots of a TPM coprocessor", [][2]string{
		{"/run/hwvtpm/coprocd.sock", "the daemon"},
		{"/var/lib/hwvtpm/keys", "access keys of slots that root has made"},
	}, "coprocd(8), vhost-user-vtpm(1)"},
	{"coprocd", 8, "simulated coprocessor with TPMs in its slots", [][2]string{
		{"/var/lib/hwvtpm/card", "the store of coprocd.service"},
		{"/run/hwvtpm/coprocd.sock", "its socket"},
	}, "vtpmctl(1), vhost-user-vtpm(1)"},
	{"vtpm-hostd", 8, "tie a host's TPM coprocessor to the host's TPM", [][2]string{
		{"/etc/hwvtpm/hostd.env", "HOSTD_FLAGS of vtpm-hostd.service"},
		{"/var/lib/hwvtpm/hostd", "attestation key, certificates and TLS key"},
		{"/run/hwvtpm/hostd.sock", "the operators' door"},
		{"/run/hwvtpm/guests/NAME.sock", "the doors of guests"},
	}, "vtpmctl(1), coprocd(8), vhost-user-vtpm(1)"},
	{"hwvtpm-libvirt-hook", 8, "start and stop the vTPMs of libvirt domains", [][2]string{
		{"/etc/libvirt/hooks/qemu.d/hwvtpm", "what libvirt runs; flags are set there"},
		{"/run/hwvtpm/vm/SLOT", "sockets of a machine and its backend"},
	}, "vhost-user-vtpm(1), vtpmctl(1), virsh(1)"},
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
		// Some print their help to stderr.
		help, err := exec.Command(filepath.Join(programs, p.program), "--help").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s --help: %w: %s", p.program, err, help)
		}
		name := filepath.Join(out, fmt.Sprintf("%s.%d", p.program, p.section))
		if err := os.WriteFile(name, []byte(p.render(string(help))), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// render makes the page.
func (p page) render(help string) string {
	var w writer
	w.line(".TH %s %d \"\" hwvtpm", strings.ToUpper(p.program), p.section)
	w.line(".SH NAME\n%s \\- %s", escape(p.program), escape(p.title))
	for _, b := range parse(help) {
		w.block(b)
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
