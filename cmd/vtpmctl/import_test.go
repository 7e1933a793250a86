// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hwvtpm/internal/cli"
)

// livedWith makes a TPM with swtpm, in the directory $D/state, and gives it what a
// machine leaves in it: NV, keys, a sealed secret, a password. $K are swtpm's
// options for a key.
const livedWith = `
mkdir -p $D/state
port=$((20000 + RANDOM % 20000))
swtpm_setup --tpm2 --tpmstate $D/state --createek --create-spk $S >$D/log 2>&1
swtpm socket --tpm2 --tpmstate dir=$D/state $K --flags not-need-init,startup-clear --daemon \
  --server type=tcp,port=$port --ctrl type=tcp,port=$((port + 1)) --pid file=$D/pid
export TPM2TOOLS_TCTI=swtpm:host=127.0.0.1,port=$port
cd $D
tpm2_nvdefine -Q 0x1500020 -C o -s 12 -a 'ownerread|ownerwrite'
printf 'written once' | tpm2_nvwrite -Q 0x1500020 -C o -i -
tpm2_readpublic -Q -c 0x81010001 -f pem -o ek.before
printf 'a secret' | tpm2_create -Q -C 0x81000001 -i - -p right -u sealed.pub -r sealed.priv
tpm2_create -Q -C 0x81000001 -G ecc -u key.pub -r key.priv -c key.ctx
tpm2_evictcontrol -Q -C o -c key.ctx 0x81000010
tpm2_readpublic -Q -c 0x81000010 -f pem -o key.pem
tpm2_flushcontext -t
! vtpmctl import-swtpm vm --state $D/state $I 2>used # it runs
tpm2_shutdown -c
kill $(cat $D/pid)
while kill -0 $(cat $D/pid) 2>/dev/null; do sleep 0.02; done
cat used
`

// goesOn checks that a slot's TPM is the one that livedWith made.
const goesOn = `
cd $D
test "$(tpm2_nvread 0x1500020 -C o -s 12)" = 'written once'
tpm2_readpublic -Q -c 0x81010001 -f pem -o ek.after
cmp ek.before ek.after
tpm2_load -Q -C 0x81000001 -u sealed.pub -r sealed.priv -c sealed.ctx
test "$(tpm2_unseal -c sealed.ctx -p right)" = 'a secret'
! tpm2_unseal -c sealed.ctx -p wrong 2>/dev/null
printf 'to sign' > message
tpm2_sign -Q -c 0x81000010 -g sha256 -f plain -o signature message
openssl dgst -sha256 -verify key.pem -signature signature message
printf 'written more' | tpm2_nvwrite -Q 0x1500020 -C o -i -
test "$(tpm2_nvread 0x1500020 -C o -s 12)" = 'written more'
`

// TestImportSwtpm: a TPM that has lived with swtpm goes on in a slot, with its
// identity, NV, keys and secrets. What is no such TPM makes no slot.
func TestImportSwtpm(t *testing.T) {
	daemon := newToolsRig(t)
	dir := t.TempDir()
	for name, b := range map[string]string{"hex": strings.Repeat("5a", 32), "pwd": "a passphrase", "other": strings.Repeat("5b", 32)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct{ name, setup, swtpm, ctl string }{
		{"plain", "", "", ""},
		{"key", "--keyfile " + dir + "/hex --cipher aes-256-cbc", "--key file=" + dir + "/hex,mode=aes-256-cbc", "--key " + dir + "/hex,mode=aes-256-cbc"},
		{"password", "--pwdfile " + dir + "/pwd", "--key pwdfile=" + dir + "/pwd", "--pwdfile " + dir + "/pwd"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &toolsRig{t: t, dir: daemon.dir, env: daemon.env}
			home := t.TempDir()
			env := "D=" + home + " S='" + tc.setup + "' K='" + tc.swtpm + "' I='" + tc.ctl + "'\n"
			contains(t, r.sh(env+livedWith), "a swtpm, process", "shut the virtual machine down first")
			file := filepath.Join(home, "state", swtpmState)
			before, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			vm := "vm-" + tc.name
			call := "vtpmctl import-swtpm " + vm + " --state " + home + "/state "
			contains(t, r.sh("! "+call+"--key "+dir+"/other,mode=aes-256-cbc 2>&1"), "wrong key")
			r.refuseChanged(t, home, vm, tc.ctl)
			contains(t, r.sh("! vtpmctl slot show "+vm+" 2>&1"), "no such slot")
			contains(t, r.sh(call+tc.ctl+" 2>&1"), "Never start swtpm on it again", "rsa", vm)
			r.sh(env + "export TPM2TOOLS_TCTI='cmd:vtpmctl raw --slot " + vm + "'\n" + goesOn)
			if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the source was changed, %v", err)
			}
			contains(t, r.sh("! "+call+tc.ctl+" 2>&1"), "exists")
		})
	}
}

// refuseChanged imports the state cut off, and changed where that can be told.
func (r *toolsRig) refuseChanged(t *testing.T, home, vm, key string) {
	t.Helper()
	whole, err := os.ReadFile(filepath.Join(home, "state", swtpmState))
	if err != nil {
		t.Fatal(err)
	}
	changed := func(at int) []byte {
		b := bytes.Clone(whole)
		b[at] ^= 1
		return b
	}
	files := map[string][]byte{"cut": whole[:len(whole)-5], "head": changed(3), "magic of libtpms": changed(22)}
	if key != "" {
		files["flipped"] = changed(len(whole) / 2)
	}
	bad := filepath.Join(home, "bad")
	if err := os.MkdirAll(bad, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		want := "not a whole state file"
		switch {
		case name == "flipped", name == "magic of libtpms" && key != "":
			want = "wrong key"
		case name == "magic of libtpms":
			want = "none of a TPM that this card can run"
		}
		if err := os.WriteFile(filepath.Join(bad, swtpmState), b, 0o600); err != nil {
			t.Fatal(err)
		}
		contains(t, r.sh("! vtpmctl import-swtpm "+vm+" --state "+bad+" "+key+" 2>&1"), want)
	}
}

// TestImportArguments: what can be told before there is a daemon.
func TestImportArguments(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	for _, tc := range []struct {
		line string
		code int
		want string
	}{
		{"import-swtpm", cli.ExitUsage, "takes 1 more"},
		{"import-swtpm vm", cli.ExitUsage, "--state DIR"},
		{"import-swtpm vm --state " + dir + " --key a --pwdfile b", cli.ExitUsage, "not both"},
		{"import-swtpm vm --state " + dir, cli.ExitFailure, "no such file"},
	} {
		if got := r.run("", tc.line); got.code != tc.code || !strings.Contains(got.err, tc.want) {
			t.Errorf("%s: exit code %d, %q, want %d and %q", tc.line, got.code, got.err, tc.code, tc.want)
		}
	}
	for arg, ok := range map[string]bool{
		"file": true, "file,format=hex,mode=aes-256-cbc": true, "file,format=octal": false, "file,mode": false, "file,remove=true": false,
	} {
		_, _, err := options(arg, map[string][]string{"format": {"hex", "binary"}, "mode": {"aes-cbc", "aes-256-cbc"}})
		if (err == nil) != ok {
			t.Errorf("options(%q) = %v", arg, err)
		}
	}
}

// TestImportOfUsedState: a state that somebody has locked is not touched.
func TestImportOfUsedState(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, swtpmLock))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unused(dir); err != nil {
		t.Errorf("a lock that nobody holds: %v", err)
	}
	// A lock by fcntl is the process's own; that of an open file is not.
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	if err := unused(dir); err == nil {
		t.Error("a state that is in use is taken")
	}
}

// TestImportOfStrangeFiles: what leads elsewhere is not read, and nothing is waited for.
func TestImportOfStrangeFiles(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{swtpmState, swtpmLock} {
		for what, tc := range map[string]struct {
			put  func(path string) error
			want string
		}{
			"symbolic link": {func(path string) error { return os.Symlink("/dev/zero", path) }, "symbolic link"},
			"pipe":          {func(path string) error { return unix.Mkfifo(path, 0o600) }, "is no file"},
			"directory":     {func(path string) error { return os.Mkdir(path, 0o700) }, "is no file"},
		} {
			dir := t.TempDir()
			if err := tc.put(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			done := make(chan result, 1)
			go func() { done <- r.run("", "import-swtpm vm --state "+dir) }()
			select {
			case got := <-done:
				if got.code != cli.ExitFailure || !strings.Contains(got.err, tc.want) {
					t.Errorf("%s as %s: exit code %d, %q, want %d and %q", what, name, got.code, got.err, cli.ExitFailure, tc.want)
				}
			case <-time.After(20 * time.Second):
				t.Errorf("%s as %s is waited for", what, name)
			}
		}
	}
}
