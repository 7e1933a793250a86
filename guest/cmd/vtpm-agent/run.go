// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"hwvtpm/guest/agent"
)

// config is what the command line gives; see main for the meaning.
type config struct {
	port, modules, cmdline string
}

// environment is what the host's programs find in theirs.
var environment = map[string]string{
	"PATH":           "/bbin:/bin:/usr/bin:/sbin:/usr/sbin",
	"TPM2TOOLS_TCTI": "device:" + resourceManager,
}

// run serves the host until the machine goes down.
func run(ctx context.Context, cfg config, log hclog.Logger) error {
	for name, value := range environment {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	if err := upLoopback(); err != nil {
		log.Warn("no network within the machine", "error", err)
	}
	modules, err := loadModules(cfg.modules, cfg.cmdline)
	if err != nil {
		return err
	}
	for _, m := range modules {
		if m.Error != "" {
			log.Warn("module not loaded", "module", m.Name, "error", m.Error)
		}
	}
	hello, err := makeHello()
	if err != nil {
		return err
	}
	hello.Modules = modules
	port, err := openPort(cfg.port)
	if err != nil {
		return err
	}
	defer port.Close()
	srv := agent.Server{Hello: hello, Handlers: handlers(), Logger: log}
	for {
		if err := srv.Serve(ctx, port); err != nil {
			return err
		}
		// The line was hung up. It comes back, or the machine ends.
		time.Sleep(time.Second)
	}
}

func makeHello() (agent.Hello, error) {
	h := agent.Hello{Session: rand.Text()}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return h, err
	}
	h.BootID = strings.TrimSpace(string(id))
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return h, fmt.Errorf("uname: %w", err)
	}
	h.Kernel = unix.ByteSliceToString(u.Release[:])
	up, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return h, err
	}
	first, _, _ := strings.Cut(string(up), " ")
	h.Uptime, err = strconv.ParseFloat(first, 64)
	return h, err
}

// openPort opens the serial port as a plain stream of bytes.
func openPort(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: not a terminal: %w", path, err)
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	// CLOCAL: the connection does not end with a modem line.
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, t); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: raw mode: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// handler turns a function on typed arguments into an agent.Handler.
func handler[A, R any](f func(context.Context, A) (R, error)) agent.Handler {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var args A
		if len(raw) > 0 {
			if err := json.Unmarshal(raw, &args); err != nil {
				return nil, fmt.Errorf("arguments: %w", err)
			}
		}
		return f(ctx, args)
	}
}

// none is the argument or the result of an operation that has none.
type none struct{}

func handlers() map[string]agent.Handler {
	load := &loader{}
	return map[string]agent.Handler{
		agent.OpRun:          handler(runProgram),
		agent.OpRead:         handler(readFile),
		agent.OpWrite:        handler(writeFile),
		agent.OpReboot:       handler(goDown(unix.LINUX_REBOOT_CMD_RESTART)),
		agent.OpPoweroff:     handler(goDown(unix.LINUX_REBOOT_CMD_POWER_OFF)),
		agent.OpKexec:        handler(kexec),
		agent.OpDriverLoad:   handler(loadDriver),
		agent.OpDriverUnload: handler(unloadDriver),
		agent.OpDriverBind:   handler(bindTo("bind")),
		agent.OpDriverUnbind: handler(bindTo("unbind")),
		agent.OpDevices:      handler(virtioDevices),
		agent.OpTPMInfo:      handler(tpmInfo),
		agent.OpTPMRaw:       handler(tpmRaw),
		agent.OpRandom:       handler(tpmRandom),
		agent.OpPCRRead:      handler(pcrRead),
		agent.OpPCRExtend:    handler(pcrExtend),
		agent.OpNVDefine:     handler(nvDefine),
		agent.OpNVUndefine:   handler(nvUndefine),
		agent.OpNVWrite:      handler(nvWrite),
		agent.OpNVRead:       handler(nvRead),
		agent.OpBench:        handler(bench),
		agent.OpLoadStart:    handler(load.start),
		agent.OpLoadStatus:   handler(load.status),
		agent.OpLoadStop:     handler(load.stop),
	}
}

// capped keeps the first agent.MaxOutput bytes and swallows the rest.
type capped struct {
	b    []byte
	full bool
}

func (c *capped) Write(p []byte) (int, error) {
	n := min(len(p), agent.MaxOutput-len(c.b))
	c.b = append(c.b, p[:n]...)
	c.full = c.full || n < len(p)
	return len(p), nil
}

func runProgram(ctx context.Context, a agent.RunArgs) (agent.Result, error) {
	if len(a.Argv) == 0 {
		return agent.Result{}, fmt.Errorf("no program")
	}
	if a.TimeoutMS > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(a.TimeoutMS)*time.Millisecond)
		defer cancel()
	}
	var stdout, stderr capped
	cmd := exec.CommandContext(ctx, a.Argv[0], a.Argv[1:]...)
	cmd.Env = append(os.Environ(), a.Env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second // for children that keep the pipes open
	if a.Stdin != nil {
		cmd.Stdin = strings.NewReader(string(a.Stdin))
	}
	start := time.Now()
	err := cmd.Run()
	r := agent.Result{
		Stdout: stdout.b, Stderr: stderr.b, Truncated: stdout.full || stderr.full,
		TimedOut: ctx.Err() != nil, NS: int64(time.Since(start)),
	}
	switch {
	case cmd.ProcessState != nil:
	case r.TimedOut: // before it started
		r.ExitCode = -1
		return r, nil
	default:
		return r, err // did not start
	}
	r.ExitCode = cmd.ProcessState.ExitCode()
	return r, nil
}

func readFile(_ context.Context, a agent.ReadArgs) (agent.Data, error) {
	f, err := os.Open(a.Path)
	if err != nil {
		return agent.Data{}, err
	}
	defer f.Close()
	if a.Offset != 0 {
		if _, err := f.Seek(a.Offset, io.SeekStart); err != nil {
			return agent.Data{}, err
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, agent.MaxOutput))
	return agent.Data{Data: b}, err
}

func writeFile(_ context.Context, a agent.WriteArgs) (none, error) {
	mode := os.FileMode(0o644)
	if a.Mode != 0 {
		mode = os.FileMode(a.Mode) & os.ModePerm
	}
	return none{}, os.WriteFile(a.Path, a.Data, mode)
}
