// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// made is an ELF file with nothing in it but what a loader reads.
type made struct {
	interp  string
	needed  []string
	runpath string
	rpath   string
	machine elf.Machine // default: x86-64
}

// bytes lays the file out: header, PT_INTERP's header, three sections' headers,
// then the loader's name, .dynstr and .dynamic.
func (m made) bytes(t testing.TB) []byte {
	t.Helper()
	if m.machine == 0 {
		m.machine = elf.EM_X86_64
	}
	const heads = 64 + 56 + 3*64
	strtab, dynamic := []byte{0}, new(bytes.Buffer)
	add := func(tag elf.DynTag, value string) {
		put(t, dynamic, elf.Dyn64{Tag: int64(tag), Val: uint64(len(strtab))})
		strtab = append(append(strtab, value...), 0)
	}
	for _, name := range m.needed {
		add(elf.DT_NEEDED, name)
	}
	if m.runpath != "" {
		add(elf.DT_RUNPATH, m.runpath)
	}
	if m.rpath != "" {
		add(elf.DT_RPATH, m.rpath)
	}
	put(t, dynamic, elf.Dyn64{})
	interp := append([]byte(m.interp), 0)
	strAt := heads + uint64(len(interp))
	dynAt := strAt + uint64(len(strtab))

	kind := elf.PT_INTERP
	if m.interp == "" {
		kind = elf.PT_NULL
	}
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	out := new(bytes.Buffer)
	put(t, out, elf.Header64{Ident: ident, Type: uint16(elf.ET_DYN), Machine: uint16(m.machine), Version: 1,
		Phoff: 64, Shoff: 64 + 56, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64, Shnum: 3, Shstrndx: 1})
	put(t, out, elf.Prog64{Type: uint32(kind), Off: heads, Filesz: uint64(len(interp)), Memsz: uint64(len(interp))})
	put(t, out, elf.Section64{})
	put(t, out, elf.Section64{Type: uint32(elf.SHT_STRTAB), Off: strAt, Size: uint64(len(strtab))})
	put(t, out, elf.Section64{Type: uint32(elf.SHT_DYNAMIC), Off: dynAt, Size: uint64(dynamic.Len()), Link: 1, Entsize: 16})
	out.Write(interp)
	out.Write(strtab)
	out.Write(dynamic.Bytes())
	return out.Bytes()
}

func put(t testing.TB, b *bytes.Buffer, v any) {
	t.Helper()
	if err := binary.Write(b, binary.LittleEndian, v); err != nil {
		t.Fatal(err)
	}
}

// tree fills a folder: made is written as an ELF file, a string beginning with @
// as a symbolic link, another one as text.
func tree(t *testing.T, files map[string]any) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		host := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(host), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch c := content.(type) {
		case made:
			err = os.WriteFile(host, c.bytes(t), 0o755)
		case string:
			if c[0] == '@' {
				err = os.Symlink(c[1:], host)
			} else {
				err = os.WriteFile(host, []byte(c), 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const ldso = "/lib64/ld-linux-x86-64.so.2"

func TestPrograms(t *testing.T) {
	const arch = "usr/lib/x86_64-linux-gnu/"
	debian := map[string]any{
		"lib":                            "@usr/lib",
		"lib64":                          "@usr/lib64",
		"usr/lib64/ld-linux-x86-64.so.2": "@/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
		arch + "ld-linux-x86-64.so.2":    made{},
		arch + "libc.so.6":               made{needed: []string{"ld-linux-x86-64.so.2"}},
		arch + "libdeep.so.1":            "@libdeep.so.1.2",
		arch + "libdeep.so.1.2":          made{needed: []string{"libc.so.6"}},
		arch + "libwide.so.1":            made{needed: []string{"libdeep.so.1", "libc.so.6"}},
		arch + "libboth.so.1":            made{machine: elf.EM_AARCH64},
		"usr/lib/libboth.so.1":           made{},
		arch + "libtwin.so.1":            made{},
		"opt/app/lib/libtwin.so.1":       made{},
		"opt/app/lib/libown.so.1":        made{needed: []string{"libpart.so.1"}},
		"opt/app/lib/libpart.so.1":       made{},
		"usr/local/lib/liblocal.so.1":    made{},
		"etc/ld.so.conf":                 "include ld.so.conf.d/*.conf\n",
		"etc/ld.so.conf.d/local.conf":    "# a comment\n/usr/local/lib\ninclude ../ld.so.conf\n",
		"bin/script":                     "#!/bin/sh\n",
	}
	base := map[string]string{
		ldso:                              arch + "ld-linux-x86-64.so.2",
		"/lib/x86_64-linux-gnu/libc.so.6": arch + "libc.so.6",
	}
	for name, tc := range map[string]struct {
		program made
		want    map[string]string // besides base and the program
		missing bool
	}{
		"static":  {program: made{}},
		"direct":  {program: made{interp: ldso, needed: []string{"libc.so.6"}}},
		"closure": {program: made{interp: ldso, needed: []string{"libwide.so.1"}}, want: map[string]string{"/lib/x86_64-linux-gnu/libwide.so.1": arch + "libwide.so.1", "/lib/x86_64-linux-gnu/libdeep.so.1": arch + "libdeep.so.1.2"}},
		"another machine's": {program: made{interp: ldso, needed: []string{"libboth.so.1", "libc.so.6"}}, want: map[string]string{
			"/lib/libboth.so.1": "usr/lib/libboth.so.1",
		}},
		"configured": {program: made{interp: ldso, needed: []string{"liblocal.so.1", "libc.so.6"}}, want: map[string]string{
			"/lib/x86_64-linux-gnu/liblocal.so.1": "usr/local/lib/liblocal.so.1",
		}},
		"runpath comes first": {program: made{interp: ldso, needed: []string{"libtwin.so.1", "libc.so.6"}, runpath: "/none:$ORIGIN/lib"}, want: map[string]string{
			"/lib/x86_64-linux-gnu/libtwin.so.1": "opt/app/lib/libtwin.so.1",
		}},
		"runpath is not inherited": {program: made{interp: ldso, needed: []string{"libown.so.1", "libc.so.6"}, runpath: "/opt/app/lib"}, missing: true},
		"rpath is inherited": {program: made{interp: ldso, needed: []string{"libown.so.1", "libc.so.6"}, rpath: "${ORIGIN}/lib"}, want: map[string]string{
			"/lib/x86_64-linux-gnu/libown.so.1": "opt/app/lib/libown.so.1", "/lib/x86_64-linux-gnu/libpart.so.1": "opt/app/lib/libpart.so.1",
		}},
		"runpath switches rpath off": {program: made{interp: ldso, needed: []string{"libown.so.1"}, runpath: "/none", rpath: "/opt/app/lib"}, missing: true},
		"no library":                 {program: made{interp: ldso, needed: []string{"libnone.so.1"}}, missing: true},
		"no loader":                  {program: made{interp: "/lib/ld-none.so"}, missing: true},
	} {
		t.Run(name, func(t *testing.T) {
			debian["opt/app/program"] = tc.program
			root := tree(t, debian)
			programs := map[string]string{"/bin/program": filepath.Join(root, "opt/app/program"), "/bin/script": filepath.Join(root, "bin/script")}
			got, err := Programs([]string{root}, programs)
			if tc.missing {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("Programs() = %v, %v, want ErrNotExist", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"/bin/program": "opt/app/program", "/bin/script": "bin/script"}
			if tc.program.interp != "" {
				maps.Copy(want, base)
			}
			maps.Copy(want, tc.want)
			for guest, host := range want {
				want[guest] = filepath.Join(root, host)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The first root with the library counts; two programs that would bring
// different files to one place do not go together.
func TestProgramsOfSeveralRoots(t *testing.T) {
	lib := "usr/lib/liba.so.1"
	first := tree(t, map[string]any{lib: made{}})
	second := tree(t, map[string]any{lib: made{}, "usr/lib/libb.so.1": made{}})
	apps := tree(t, map[string]any{
		"one":           made{needed: []string{"liba.so.1", "libb.so.1"}},
		"own/liba.so.1": made{},
		"two":           made{needed: []string{"liba.so.1"}, runpath: "$ORIGIN/own"},
	})
	one := map[string]string{"/one": filepath.Join(apps, "one")}
	got, err := Programs([]string{first, second}, one)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"/one":               one["/one"],
		"/usr/lib/liba.so.1": filepath.Join(first, lib),
		"/usr/lib/libb.so.1": filepath.Join(second, "usr/lib/libb.so.1"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// Both as the loader's first folder has them.
	moved := tree(t, map[string]any{"usr/lib/x86_64-linux-gnu/liba.so.1": made{}, "lib": "@usr/lib"})
	both := map[string]string{"/one": filepath.Join(apps, "two"), "/two": filepath.Join(apps, "two2")}
	if err := os.WriteFile(both["/two"], made{needed: []string{"liba.so.1"}}.bytes(t), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := Programs([]string{moved}, both); err == nil {
		t.Errorf("Programs() = %v, want an error: two files are needed as one", got)
	}
}

func TestInside(t *testing.T) {
	root := tree(t, map[string]any{
		"etc/file":    "text",
		"abs":         "@/etc",
		"up":          "@../../../../etc",
		"etc/back":    "@../abs/file",
		"loop":        "@loop",
		"etc/to-root": "@/",
	})
	for name, want := range map[string]string{
		"/etc/file": "etc/file", "abs/file": "etc/file", "/up/file": "etc/file", "/etc/back": "etc/file",
		"/etc/../etc/./file": "etc/file", "/../../etc/file": "etc/file", "/etc/to-root/etc/file": "etc/file",
		"/loop": "", "/none": "", "/etc/file/x": "",
	} {
		got, err := inside(root, name)
		if want == "" {
			if err == nil {
				t.Errorf("inside(%s) = %s, want an error", name, got)
			}
		} else if err != nil || got != filepath.Join(root, want) {
			t.Errorf("inside(%s) = %s, %v, want %s", name, got, err, want)
		}
	}
}

func FuzzReadObject(f *testing.F) {
	f.Add(made{interp: ldso, needed: []string{"a", "b"}, runpath: "$ORIGIN:/x"}.bytes(f))
	f.Add([]byte("\x7fELF"))
	f.Add([]byte("#!/bin/sh"))
	f.Fuzz(func(t *testing.T, b []byte) {
		host := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(host, b, 0o600); err != nil {
			t.Fatal(err)
		}
		o, err := readObject(host, nil)
		if err == nil && o.search != nil && o.rpath != nil {
			t.Error("an object has both a run path and an inherited one")
		}
	})
}
