// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const socketUsage = `Usage: swtpm socket --tpm2 --tpmstate dir=DIR --ctrl CHANNEL [options]

Serves the TPM 2.0 of a state directory until it is told to end.

  --tpm2                    required: there is no TPM 1.2
  --tpmstate dir=DIR[,mode=MODE]
                            the state directory (default: TPM_PATH). The TPM itself
                            is in a slot; DIR says which, and has its key
  --ctrl type=unixio,path=PATH[,mode=MODE][,uid=UID][,gid=GID]
  --ctrl type=tcp,port=PORT[,bindaddr=ADDRESS]
  --ctrl [type=unixio,]fd=FD|clientfd=FD
                            the control channel; ',terminate' ends the program
                            when a connection to it is lost
  --server type=tcp,port=PORT[,bindaddr=ADDRESS][,disconnect]
  --server type=unixio,path=PATH[,mode=MODE][,uid=UID][,gid=GID][,disconnect]
  --server [type=...,]fd=FD
  -p, --port PORT; -f, --fd FD
                            a socket for TPM commands, instead of the one that
                            comes over the control channel
  --flags not-need-init[,startup-clear|startup-state|startup-none]
                            start the TPM, and TPM2_Startup, unasked
  -t, --terminate           end when a connection for TPM commands is lost
  -d, --daemon              go to the background when the sockets are there
  --pid file=PATH|fd=FD     write the process id there
  --log file=PATH|fd=FD[,level=N][,prefix=TEXT][,truncate]
                            level 0 logs errors only, 5 and more all there is
  -r, --runas USER          become USER first
  --locality reject-locality-4, --seccomp action=none
                            say what is so anyway
  --print-capabilities, --version, -h, --help

HWVTPM_SOCKET, or 'socket' in /etc/hwvtpm/swtpm.conf, say where coprocd is.
`

// channel is where a listener is to be, or what was handed over.
type channel struct {
	network    string // tcp, unix; empty: fd, or none at all
	address    string
	mode       os.FileMode
	uid, gid   int
	fd         int  // listening, or -1
	connected  int  // a connection, or -1
	disconnect bool // hang up after each response
}

func (c *channel) given() bool { return c.network != "" || c.fd >= 0 || c.connected >= 0 }

// socketConfig is the command line of "swtpm socket", checked.
type socketConfig struct {
	state     string
	ctrl      channel
	server    channel
	init      bool
	startup   int  // type of TPM2_Startup, or -1
	terminate bool // with a connection for commands
	ctrlEnds  bool // with a connection to the control channel
	daemon    bool
	pidFile   string
	pidFD     int
	log       logConfig
	runAs     string
}

// swtpmKeys says why there are no keys for the state.
const swtpmKeys = "the card seals the state under a key of its own"

func parseSocket(con *console, args []string) (*socketConfig, error) {
	none := channel{fd: -1, connected: -1}
	c := &socketConfig{state: con.getenv("TPM_PATH"), ctrl: none, server: none, startup: -1, pidFD: -1, log: stderrLog()}
	var tpm2, help, caps, version bool
	err := parseOptions(args, []option{
		{names: []string{"--tpm2"}, flag: &tpm2},
		{names: []string{"--tpmstate"}, value: c.setState},
		{names: []string{"--ctrl"}, value: c.setControl},
		{names: []string{"--server"}, value: c.setServer},
		{names: []string{"-p", "--port"}, value: func(v string) error { return c.setServer("type=tcp,disconnect,port=" + v) }},
		{names: []string{"-f", "--fd"}, value: func(v string) error { return c.setServer("fd=" + v) }},
		{names: []string{"--flags"}, value: c.setFlags},
		{names: []string{"-t", "--terminate"}, flag: &c.terminate},
		{names: []string{"-d", "--daemon"}, flag: &c.daemon},
		{names: []string{"--pid"}, value: c.setPID},
		{names: []string{"--log"}, value: c.log.set},
		{names: []string{"-r", "--runas"}, word: &c.runAs},
		{names: []string{"--locality"}, value: only("reject-locality-4")},
		{names: []string{"--seccomp"}, value: only("action=none")},
		refuse(swtpmKeys, "--key"),
		refuse("state leaves sealed by the card, without a key to give", "--migration-key"),
		refuse("a slot is not shared between hosts", "--migration"),
		refuse("it is the TPM's own, and there is one", "--profile"),
		refuse("the states are the card's", "--print-states"),
		{names: []string{"--print-capabilities"}, flag: &caps},
		{names: []string{"-v", "--version"}, flag: &version},
		{names: []string{"-h", "--help"}, flag: &help},
	})
	switch {
	case err != nil:
		return nil, err
	case help:
		io.WriteString(con.out, socketUsage)
		return nil, errPrinted
	case version:
		return nil, printVersion(con)
	case caps:
		return nil, printCapabilities(con, "swtpm", swtpmFeatures)
	}
	return c, errors.Join(c.check(tpm2), c.makeAbsolute())
}

// makeAbsolute makes paths independent of the working directory, which a daemon
// leaves.
func (c *socketConfig) makeAbsolute() error {
	paths := []*string{&c.state, &c.pidFile}
	for _, ch := range []*channel{&c.ctrl, &c.server} {
		if ch.network == "unix" {
			paths = append(paths, &ch.address)
		}
	}
	for _, p := range paths {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}

func (c *socketConfig) check(tpm2 bool) error {
	switch {
	case !tpm2:
		return errors.New("a TPM 1.2 is not supported: give --tpm2")
	case c.state == "":
		return errors.New("give the state directory: --tpmstate dir=DIR")
	case !c.ctrl.given() && !c.server.given():
		return errors.New("give a control channel (--ctrl), or a socket for commands (--server)")
	}
	return nil
}

// only makes the setter of an option that has one right value.
func only(right string) func(string) error {
	return func(v string) error {
		if v != right {
			return fmt.Errorf("%q is not supported (but %s)", v, right)
		}
		return nil
	}
}

func (c *socketConfig) setState(v string) error {
	p, err := parseParameters(v, "dir", "backend-uri", "mode")
	if err != nil {
		return err
	}
	// The mode is of state files, which are the card's, or ours alone.
	if _, err := p.mode(0); err != nil {
		return err
	}
	dir := p["dir"]
	if uri := p["backend-uri"]; uri != "" {
		dir = uri
	}
	c.state, err = stateDir(dir)
	return err
}

// stateDir takes a directory as swtpm lets one name it.
func stateDir(name string) (string, error) {
	if strings.HasPrefix(name, "file://") {
		return "", errors.New("state in one file (file://) is not supported: give a directory")
	}
	if name = strings.TrimPrefix(name, "dir://"); name == "" {
		return "", errors.New("give a directory")
	}
	return name, nil
}

func (c *socketConfig) setControl(v string) error {
	p, err := parseParameters(v, "type", "path", "port", "bindaddr", "mode", "uid", "gid", "fd", "clientfd", "terminate")
	if err != nil {
		return err
	}
	c.ctrlEnds = p.has("terminate")
	return c.ctrl.set(p)
}

func (c *socketConfig) setServer(v string) error {
	p, err := parseParameters(v, "type", "path", "port", "bindaddr", "mode", "uid", "gid", "fd", "disconnect")
	if err != nil {
		return err
	}
	if p.has("fd") { // a connection, unlike the control channel's
		p["clientfd"] = p["fd"]
		delete(p, "fd")
	}
	return c.server.set(p)
}

func (c *channel) set(p parameters) error {
	*c = channel{disconnect: p.has("disconnect")}
	mode, modeErr := p.mode(0o770)
	uid, uidErr := p.number("uid", -1)
	gid, gidErr := p.number("gid", -1)
	fd, fdErr := p.number("fd", -1)
	connected, connErr := p.number("clientfd", -1)
	c.mode, c.uid, c.gid, c.fd, c.connected = mode, uid, gid, fd, connected
	if err := errors.Join(modeErr, uidErr, gidErr, fdErr, connErr); err != nil {
		return err
	}
	if c.fd >= 0 || c.connected >= 0 {
		return nil
	}
	switch p["type"] {
	case "unixio":
		c.network, c.address = "unix", p["path"]
	case "tcp", "":
		return c.setTCP(p)
	default:
		return fmt.Errorf("type=%q is not unixio or tcp", p["type"])
	}
	if c.address == "" {
		return errors.New("type=unixio needs path=")
	}
	return nil
}

func (c *channel) setTCP(p parameters) error {
	port, err := strconv.ParseUint(p["port"], 10, 16)
	if err != nil {
		return errors.New("type=tcp needs port=")
	}
	host := p["bindaddr"]
	if host == "" {
		host = "127.0.0.1"
	}
	if net.ParseIP(host) == nil {
		return fmt.Errorf("bindaddr=%q is no address", host)
	}
	c.network, c.address = "tcp", net.JoinHostPort(host, strconv.FormatUint(port, 10))
	return nil
}

func (c *socketConfig) setFlags(v string) error {
	p, err := parseParameters(v, "not-need-init", "startup-clear", "startup-state", "startup-none")
	if err != nil {
		return err
	}
	c.init = true // each of them implies it
	switch {
	case p.has("startup-clear"):
		c.startup = 0
	case p.has("startup-state"):
		c.startup = 1
	}
	return nil
}

func (c *socketConfig) setPID(v string) error {
	p, err := parseParameters(v, "file", "fd")
	if err != nil {
		return err
	}
	c.pidFile = p["file"]
	c.pidFD, err = p.number("fd", -1)
	return err
}
