// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-tpm/tpm2"

	"hwvtpm/guest/agent"
)

func TestModuleName(t *testing.T) {
	for path, want := range map[string]string{
		"/lib/hwvtpm/tpm_virtio.ko": "tpm_virtio",
		"virtio-pci.ko.xz":          "virtio_pci",
		"plain":                     "plain",
	} {
		if got := moduleName(path); got != want {
			t.Errorf("moduleName(%q) = %q, want %q", path, got, want)
		}
	}
}

func TestModuleParams(t *testing.T) {
	tests := map[string]struct {
		cmdline, params string
		skip            bool
	}{
		"none":           {"console=ttyS0 panic=-1\n", "", false},
		"ours":           {"quiet tpm_virtio.layout=plain tpm_virtio.virtio_id=39\n", "layout=plain virtio_id=39", false},
		"another's":      {"tpm_virtio2.layout=plain xtpm_virtio.a=1", "", false},
		"left out":       {"hwvtpm.noload=a,tpm_virtio", "", true},
		"another is out": {"hwvtpm.noload=tpm_virtio2 tpm_virtio.layout=framed", "layout=framed", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			params, skip := moduleParams(tt.cmdline, "tpm_virtio")
			if params != tt.params || skip != tt.skip {
				t.Errorf("moduleParams() = %q, %v, want %q, %v", params, skip, tt.params, tt.skip)
			}
		})
	}
}

func TestLoadModulesReports(t *testing.T) {
	dir := t.TempDir()
	list, cmdline := filepath.Join(dir, "modules"), filepath.Join(dir, "cmdline")
	for name, content := range map[string]string{
		list:    "/does/not/exist/a.ko\n/does/not/exist/b.ko\n",
		cmdline: "hwvtpm.noload=b\n",
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	status, err := loadModules(list, cmdline)
	if err != nil || len(status) != 1 || status[0].Name != "a" || status[0].Error == "" {
		t.Errorf("loadModules() = %+v, %v, want one failure, of a", status, err)
	}
	if status, err := loadModules(filepath.Join(dir, "none"), cmdline); err != nil || len(status) != 0 {
		t.Errorf("loadModules() without a list = %+v, %v", status, err)
	}
}

func TestRunProgram(t *testing.T) {
	ctx := t.Context()
	sh := func(script string) agent.RunArgs { return agent.RunArgs{Argv: []string{"/bin/sh", "-c", script}} }
	tests := map[string]struct {
		args agent.RunArgs
		want agent.Result
	}{
		"output":    {sh("echo out; echo err >&2; exit 3"), agent.Result{ExitCode: 3, Stdout: []byte("out\n"), Stderr: []byte("err\n")}},
		"stdin":     {agent.RunArgs{Argv: []string{"cat"}, Stdin: []byte("in")}, agent.Result{Stdout: []byte("in")}},
		"no stdin":  {agent.RunArgs{Argv: []string{"cat"}}, agent.Result{}},
		"env":       {agent.RunArgs{Argv: []string{"/bin/sh", "-c", "echo $X"}, Env: []string{"X=y"}}, agent.Result{Stdout: []byte("y\n")}},
		"killed":    {sh("kill -9 $$"), agent.Result{ExitCode: -1}},
		"timed out": {agent.RunArgs{Argv: []string{"sleep", "600"}, TimeoutMS: 1}, agent.Result{ExitCode: -1, TimedOut: true}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := runProgram(ctx, tt.args)
			if err != nil {
				t.Fatal(err)
			}
			got.NS = 0
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := runProgram(ctx, agent.RunArgs{}); err == nil {
		t.Error("running nothing succeeded")
	}
	if _, err := runProgram(ctx, agent.RunArgs{Argv: []string{"/does/not/exist"}}); err == nil {
		t.Error("running a program that is not there succeeded")
	}
}

func TestOutputIsBounded(t *testing.T) {
	got, err := runProgram(t.Context(), agent.RunArgs{Argv: []string{"head", "-c", "1000000", "/dev/zero"}})
	if err != nil {
		t.Fatal(err)
	}
	if !got.Truncated || len(got.Stdout) != agent.MaxOutput || got.ExitCode != 0 {
		t.Errorf("%d bytes, truncated %v, exit %d", len(got.Stdout), got.Truncated, got.ExitCode)
	}
}

func TestHandlerArguments(t *testing.T) {
	h := handler(func(_ context.Context, a agent.RandomArgs) (uint16, error) { return a.Bytes, nil })
	if v, err := h(t.Context(), []byte(`{"bytes":7}`)); err != nil || v != uint16(7) {
		t.Errorf("handler = %v, %v", v, err)
	}
	if v, err := h(t.Context(), nil); err != nil || v != uint16(0) {
		t.Errorf("handler without arguments = %v, %v", v, err)
	}
	if _, err := h(t.Context(), []byte(`{"bytes":70000}`)); err == nil {
		t.Error("an argument out of range was taken")
	}
}

func TestFileOps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	data := bytes.Repeat([]byte("0123456789"), agent.MaxOutput/8)
	if _, err := writeFile(t.Context(), agent.WriteArgs{Path: path, Data: data, Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	head, err := readFile(t.Context(), agent.ReadArgs{Path: path})
	if err != nil || !bytes.Equal(head.Data, data[:agent.MaxOutput]) {
		t.Errorf("read %d bytes, %v", len(head.Data), err)
	}
	tail, err := readFile(t.Context(), agent.ReadArgs{Path: path, Offset: agent.MaxOutput})
	if err != nil || !bytes.Equal(tail.Data, data[agent.MaxOutput:]) {
		t.Errorf("read %d bytes from the offset, %v", len(tail.Data), err)
	}
}

// The machine must not go down for a kernel that is not loaded.
func TestKexecNeedsItsFiles(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	for _, args := range []agent.KexecArgs{
		{Kernel: missing, Initramfs: os.DevNull},
		{Kernel: os.DevNull, Initramfs: missing},
		{Kernel: os.DevNull, Initramfs: os.DevNull},
	} {
		if err := kexecLoad(args); err == nil {
			t.Errorf("loading %+v succeeded", args)
		}
	}
}

func TestInfoFrom(t *testing.T) {
	word := func(s string) uint32 { return binary.BigEndian.Uint32([]byte(s)) }
	got := infoFrom(map[tpm2.TPMPT]uint32{
		tpm2.TPMPTManufacturer: word("IBM\x00"), tpm2.TPMPTFamilyIndicator: word("2.0\x00"),
		tpm2.TPMPTVendorString1: word("SW  "), tpm2.TPMPTVendorString2: word("TPM\x00"),
		tpm2.TPMPTRevision: 164, tpm2.TPMPTFirmwareVersion1: 1, tpm2.TPMPTFirmwareVersion2: 2,
		tpm2.TPMPTMaxCommandSize: 4096, tpm2.TPMPTMaxResponseSize: 4095,
	})
	want := agent.TPMInfo{
		Manufacturer: "IBM", Vendor: "SW  TPM", Family: "2.0", Revision: 164,
		Firmware: 1<<32 | 2, MaxCommand: 4096, MaxResponse: 4095,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoadNeedsATPM(t *testing.T) {
	l := &loader{}
	if _, err := l.stop(t.Context(), none{}); err == nil {
		t.Error("stopping a load that was never started succeeded")
	}
	missing := agent.LoadArgs{TPMArgs: agent.TPMArgs{Device: filepath.Join(t.TempDir(), "tpm")}}
	if _, err := l.start(t.Context(), missing); err == nil {
		t.Error("a load without a TPM started")
	}
	if st, err := l.status(t.Context(), none{}); err != nil || st.Running {
		t.Errorf("status() = %+v, %v", st, err)
	}
}
