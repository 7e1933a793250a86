// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"hwvtpm/guest/agent"
	"hwvtpm/vtpm/door"
)

// place is where the programs of a cloud and its host run: on this machine, or in a
// virtual one.
type place interface {
	// run runs a program to its end and gives what it prints.
	run(argv ...string) (string, error)
	// start starts one that stays, whose output goes to a file.
	start(name string, argv ...string) error
	write(path string, data []byte) error
	read(path string) ([]byte, error)
	// log is the output of a program that was started.
	log(name string) string
}

// here is this machine.
type here struct{ *bed }

func (h here) run(argv ...string) (string, error) {
	cmd := exec.CommandContext(h.ctx, h.program(argv[0]), argv[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, errs.String())
	}
	return out.String(), nil
}

func (h here) program(name string) string {
	path := h.Env.Program(name)
	if _, err := os.Stat(path); err != nil {
		return name // of the system
	}
	return path
}

func (h here) start(name string, argv ...string) error {
	return h.Start(name, append([]string{h.program(argv[0])}, argv[1:]...)...)
}

func (h here) logPath(name string) string { return filepath.Join(h.Logs, name+".log") }

func (h here) log(name string) string {
	text, _ := os.ReadFile(h.logPath(name))
	return string(text)
}

func (h here) write(path string, data []byte) error { return os.WriteFile(path, data, 0o600) }
func (h here) read(path string) ([]byte, error)     { return os.ReadFile(path) }

// inside is a virtual machine.
type inside struct {
	*machine
	dir string
}

func (i inside) run(argv ...string) (string, error) {
	r, err := i.guest.Agent.Run(i.ctx, argv...)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return string(r.Stdout), err
}

func (i inside) start(name string, argv ...string) error {
	args := agent.RunArgs{Argv: []string{"gosh", "-c", strings.Join(argv, " ") + " >" + i.logPath(name) + " 2>&1"}, TimeoutMS: time.Hour.Milliseconds()}
	go func() { _ = i.guest.Agent.Call(i.ctx, agent.OpRun, args, nil) }() // the log says how it ends
	return nil
}

func (i inside) logPath(name string) string { return i.dir + "/" + name + ".log" }

func (i inside) log(name string) string {
	text, _ := i.read(i.logPath(name))
	return string(text)
}

func (i inside) write(path string, data []byte) error {
	return i.guest.Agent.WriteFile(i.ctx, path, data)
}
func (i inside) read(path string) ([]byte, error) { return i.guest.Agent.ReadFile(i.ctx, path) }

// cloud is an authority, and a host of its with card and daemon.
type cloud struct {
	*bed
	place
	dir string
	url string
}

const hostName = "host-1"

// startCloud makes an authority that trusts a maker's TPMs, and lets the host enrol.
func (b *bed) startCloud(p place, dir, maker string, port int) *cloud {
	b.Helper()
	c := &cloud{bed: b, place: p, dir: dir, url: fmt.Sprintf("https://127.0.0.1:%d", port)}
	c.do("vtpm-control", "--dir", c.path("control"), "init", "cloud")
	certificates, err := filepath.Glob(filepath.Join(maker, "*.pem"))
	b.must("the maker's certificates", err)
	for _, file := range certificates {
		text, err := os.ReadFile(file)
		b.must("reading a maker's certificate", err)
		b.must("trusting the maker", c.write(c.path("control/manufacturers/"+filepath.Base(file)), text))
	}
	c.daemon("vtpm-control", "--dir", c.path("control"), "serve", "--listen", strings.TrimPrefix(c.url, "https://"),
		"--name", "127.0.0.1", "--url", strings.Replace(c.url, "https", "http", 1))
	c.await("the authority", "vtpm-control", func() error {
		token, err := c.run("vtpm-control", "--dir", c.path("control"), "token", "host", hostName)
		if err != nil {
			return err
		}
		return errors.Join(c.write(c.path("token"), []byte(token)), c.secret(c.path("token")))
	})
	return c
}

// secret makes a file the owner's alone.
func (c *cloud) secret(path string) error {
	_, err := c.run("chmod", "0600", path)
	return err
}

func (c *cloud) path(name string) string { return c.dir + "/" + name }

func (c *cloud) do(argv ...string) string {
	c.Helper()
	out, err := c.run(argv...)
	c.must("running a program", err)
	return strings.TrimSpace(out)
}

func (c *cloud) daemon(argv ...string) {
	c.Helper()
	c.must("starting "+argv[0], c.start(argv[0], argv...))
}

// await asks until it is answered; the program is the one to blame if it is not.
func (c *cloud) await(what, program string, ask func() error) {
	c.Helper()
	for limit := time.Now().Add(c.Env.Patience(30 * time.Second)); ; time.Sleep(200 * time.Millisecond) {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(limit) || c.ctx.Err() != nil {
			c.Fatalf("%s: %v\n%s says\n%s", what, err, program, c.log(program))
		}
	}
}

// startHostd starts the host's daemon and waits until it has tied the card to the
// host's TPM. TPM and event log are as its flags have them.
func (c *cloud) startHostd(coprocd, tpm, eventLog string) {
	c.Helper()
	c.do("mkdir", "-p", c.path("guests"))
	c.daemon("vtpm-hostd", "--name", hostName, "--dir", c.path("hostd"), "--tpm", tpm, "--coproc", coprocd, "--event-log", eventLog,
		"--control", c.url, "--control-ca", c.path("control/ca/root.pem"), "--token-file", c.path("token"),
		"--socket", c.path("hostd.sock"), "--backend-socket", c.path("backend.sock"), "--guest-dir", c.path("guests"),
		"--certificates", c.path("certificates"))
}

// awaitCertified waits until a machine's vTPM has certificates, and gives them.
func (c *cloud) awaitCertified(vm string) door.VM {
	c.Helper()
	var shown door.VM
	c.await("certificates of "+vm, "vtpm-hostd", func() error {
		out, err := c.run("vtpmctl", "--json", "vm", "show", vm, "--hostd", c.path("hostd.sock"))
		if err == nil {
			err = json.Unmarshal([]byte(out), &shown)
		}
		if err == nil && (len(shown.EKs) == 0 || len(shown.EKs[0].Chain) == 0) {
			err = errors.New(out)
		}
		return err
	})
	return shown
}
