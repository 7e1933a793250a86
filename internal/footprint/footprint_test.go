// SPDX-License-Identifier: Apache-2.0

package footprint

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestCleanMappings(t *testing.T) {
	const smaps = `00400000-00600000 r-xp 00000000 fe:00 1 /bin/prog
Size:               2048 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00600000-00700000 r--p 00200000 fe:00 1 /bin/prog
Anonymous:             4 kB
00700000-00800000 r--p 00300000 fe:00 1 /bin/prog
Anonymous:             0 kB
00800000-00900000 rw-p 00400000 fe:00 1 /bin/prog
Anonymous:             0 kB
00900000-00a00000 r--s 00500000 fe:00 1 /bin/prog
Anonymous:             0 kB
00a00000-00b00000 r-xp 00000000 fe:00 2 /lib/libc.so.6
Anonymous:             0 kB
00b00000-00c00000 r--p 00000000 00:00 0
Anonymous:             0 kB
00c00000-00d00000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
00d00000-00e00000 r-xp 00000000 fe:00 2 /lib/libold.so (deleted)
Anonymous:             0 kB
`
	got, err := cleanMappings(strings.NewReader(smaps))
	if err != nil {
		t.Fatal(err)
	}
	want := []mapping{{0x400000, 0x600000}, {0x700000, 0x800000}, {0xa00000, 0xb00000}}
	if !slices.Equal(got, want) {
		t.Errorf("cleanMappings() = %x, want %x", got, want)
	}
}

// resident is how many KiB of files' mappings this process has in its page tables.
func resident(t *testing.T) (sum int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if key != "RssFile" && key != "RssShmem" { // the latter: in a tmpfs
			continue
		}
		var kib int
		if _, err := fmt.Sscan(value, &kib); err != nil {
			t.Fatal(err)
		}
		sum += kib
	}
	return sum
}

func TestTrimAndGoOn(t *testing.T) {
	before := resident(t)
	if err := trim(); err != nil {
		t.Fatal(err)
	}
	if after := resident(t); after == 0 || after >= before {
		t.Errorf("%d KiB of files are mapped, and were %d before", after, before)
	}
	if s := strings.Repeat("go on", 2); s != "go ongo on" {
		t.Error(s)
	}
}
