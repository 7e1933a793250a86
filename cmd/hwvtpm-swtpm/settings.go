// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"hwvtpm/vtpm/hostdoor"
)

const (
	defaultSettings = "/etc/hwvtpm/swtpm.conf"
	defaultSocket   = "/run/hwvtpm/coprocd.sock"
)

// settings are what the operator chose for all virtual machines of the host.
type settings struct {
	socket string // of coprocd; empty: a card in each state directory
	engine string // the simulated card's program; empty: the default
	hostd  string // socket of vtpm-hostd, or empty
	host   hostdoor.Mode
	chosen bool // the operator said which card, rather than nothing
}

// readSettings reads the file of settings, and the environment, which wins.
// Without either there is coprocd if its usual socket is there.
func readSettings(getenv func(string) string) (settings, error) {
	var s settings
	path := getenv("HWVTPM_SWTPM_CONF")
	if path == "" {
		path = defaultSettings
	}
	if err := s.read(path); err != nil && !(errors.Is(err, fs.ErrNotExist) && path == defaultSettings) {
		return s, fmt.Errorf("settings: %w", err)
	}
	var err error
	if s.host, err = hostdoor.ChooseMode(string(s.host), s.hostd, true); err != nil {
		return s, fmt.Errorf("settings: %s: host-pcrs: %w", path, err)
	}
	if v := getenv("HWVTPM_SOCKET"); v != "" {
		s.setSocket(v)
	}
	if !s.chosen {
		if _, err := os.Stat(defaultSocket); err == nil {
			s.socket = defaultSocket
		}
	}
	return s, nil
}

func (s *settings) setSocket(v string) {
	s.socket, s.chosen = v, true
	if v == "none" {
		s.socket = ""
	}
}

// read reads lines of the form "name = value". Comments begin with #.
func (s *settings) read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, _ := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case value == "":
			return fmt.Errorf("%s:%d: not of the form name = value", path, n)
		case name == "socket":
			s.setSocket(value)
		case name == "engine":
			s.engine = value
		case name == "hostd":
			s.hostd = value
		case name == "host-pcrs":
			s.host = hostdoor.Mode(value)
		default:
			return fmt.Errorf("%s:%d: %q is not socket, engine, hostd or host-pcrs", path, n, name)
		}
	}
	return lines.Err()
}
