// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// probe is the program of internal/probe, built without the race detector, which
// could not live in the sandbox.
var probe string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "hwvtpm-sandbox")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		probe = filepath.Join(dir, "probe")
		if out, err := exec.Command("go", "build", "-o", probe, "./internal/probe").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the probe: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// start runs the probe with a socket as descriptor 3 and the given files after it.
func start(t testing.TB, files []*os.File, args ...string) (stdout string, err error) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), probe, args...)
	cmd.ExtraFiles = append([]*os.File{theirs}, files...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if errs.Len() != 0 {
		t.Logf("probe %q wrote: %s", args, &errs)
	}
	return out.String(), err
}

// killed tells whether the filter ended the process.
func killed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == unix.SIGSYS
}

func TestReport(t *testing.T) {
	if Report() != (Status{}) {
		t.Errorf("a test is in a sandbox: %+v", Report())
	}
	if out, err := start(t, nil, "report"); err != nil || out != "{Landlock:0 Seccomp:false Locked:false}" {
		t.Errorf("without --worker: %s, %v", out, err)
	}
	const createRuleset, version, newest = 444, 1, 6
	abi, _, errno := unix.Syscall(createRuleset, 0, 0, version)
	if errno != 0 {
		abi = 0
	}
	out, err := start(t, nil, "--worker", "report")
	want := fmt.Sprintf("{Landlock:%d Seccomp:true Locked:", min(abi, newest))
	if err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("with --worker: %s, %v, want %s...", out, err, want)
	}
}

// What the kernel says of a worker, seen from outside.
func TestStatusOfProcess(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), probe, "--worker", "wait")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the worker says %q, %v", line, err)
	}
	dir := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		t.Fatal(err)
	}
	limits, err := os.ReadFile(dir + "limits")
	if err != nil {
		t.Fatal(err)
	}
	for text, wants := range map[string][]string{
		string(status): {`NoNewPrivs:\t1`, `Seccomp:\t2`, `CapEff:\t00000000000(00|04)000`, `CapPrm:\t00000000000(00|04)000`},
		string(limits): {`Max core file size +0 +0 `, `Max open files +64 +64 `, `Max file size +4194304 +4194304 `, `Max data size +1073741824 +1073741824 `},
	} {
		for _, want := range wants {
			if !regexp.MustCompile(want).MatchString(text) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	}
	locked := regexp.MustCompile(`VmLck:\s+[1-9]`).Match(status)
	report, err := start(t, nil, "--worker", "report")
	if err != nil || strings.Contains(report, "Locked:true") != locked {
		t.Errorf("memory is locked: %t, but the report says %s, %v", locked, report, err)
	}
}

// tolerated are the attempts that get an error, because libraries make them.
// Every other one is the end of the process.
var tolerated = map[string]string{
	"open a file":           "denied",
	"make a file":           "denied",
	"open by openat2":       "denied",
	"open the own memory":   "denied",
	"read a link":           "denied",
	"inject into a tty":     "inappropriate ioctl for device",
	"write to descriptor 4": "bad file descriptor",
	"memory of the host":    "cannot allocate memory",
}

func TestForbidden(t *testing.T) {
	list, err := start(t, nil, "--worker", "try", "list", "0")
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(strings.TrimSpace(list), "\n")
	if len(names) < 40 {
		t.Fatalf("only %d attempts", len(names))
	}
	for name := range maps.Keys(tolerated) {
		if !slices.Contains(names, name) {
			t.Errorf("there is no attempt %q", name)
		}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := start(t, nil, "--worker", "try", name, strconv.Itoa(os.Getpid()))
			if want := tolerated[name]; want == "" && !killed(err) {
				t.Errorf("was not the end: %q, %v", out, err)
			} else if want != "" && (err != nil || out != want) {
				t.Errorf("gave %q, %v, want %q", out, err, want)
			}
		})
	}
}

func TestInheritedDescriptorsAreClosed(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, err := start(t, []*os.File{w}, "--worker", "try", "write to descriptor 4", "0")
	w.Close()
	if err != nil {
		t.Errorf("probe: %q, %v", out, err)
	}
	if got, err := io.ReadAll(r); err != nil || len(got) != 0 {
		t.Errorf("%q came through descriptor 4, %v", got, err)
	}
}

// Everything that a worker computes works inside, beside garbage collection,
// preemption by signals, and hundreds of threads that come and go.
func TestWorkInside(t *testing.T) {
	for range 3 {
		if out, err := start(t, nil, "--worker", "work"); err != nil || out != "worked" {
			t.Fatalf("%q, %v", out, err)
		}
	}
}

// An environment that a worker did not choose must not lead it into a trap.
func TestWorkInsideWithOddSettings(t *testing.T) {
	for _, env := range []string{
		"OPENSSL_CONF=/etc/hostname", "GODEBUG=madvdontneed=0", "GODEBUG=asyncpreemptoff=1",
		"GOMAXPROCS=16", "MALLOC_ARENA_MAX=1", "LANG=de_DE.UTF-8", "TZ=Asia/Tokyo",
	} {
		name, value, _ := strings.Cut(env, "=")
		t.Setenv(name, value)
		if out, err := start(t, nil, "--worker", "work"); err != nil || out != "worked" {
			t.Errorf("with %s: %q, %v", env, out, err)
		}
	}
}

func BenchmarkSyscall(b *testing.B) {
	for _, mode := range []string{"outside", "inside"} {
		b.Run(mode, func(b *testing.B) {
			args := []string{"syscalls", "1000000"}
			if mode == "inside" {
				args = append([]string{"--worker"}, args...)
			}
			var plain, conditional float64
			for b.Loop() {
				out, err := start(b, nil, args...)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := fmt.Sscan(out, &plain, &conditional); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(plain, "ns/getpid")
			b.ReportMetric(conditional, "ns/fcntl")
		})
	}
}

func BenchmarkStart(b *testing.B) {
	for _, mode := range []string{"outside", "inside"} {
		b.Run(mode, func(b *testing.B) {
			args := []string{"report"}
			if mode == "inside" {
				args = append([]string{"--worker"}, args...)
			}
			for b.Loop() {
				if out, err := start(b, nil, args...); err != nil {
					b.Fatal(out, err)
				}
			}
		})
	}
}
