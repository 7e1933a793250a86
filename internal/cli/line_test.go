// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"
)

const usage = "Usage: prog\n"

// parsers are the ways to read a line; each gives the words beside the flags.
var parsers = map[string]func(fs *flag.FlagSet, args []string, out io.Writer) ([]string, error){
	"words": func(fs *flag.FlagSet, args []string, out io.Writer) ([]string, error) {
		return ParseWords(fs, args, out, usage)
	},
	"first": func(fs *flag.FlagSet, args []string, out io.Writer) ([]string, error) {
		err := Parse(fs, args, out, usage)
		return fs.Args(), err
	},
	"flags": func(fs *flag.FlagSet, args []string, out io.Writer) ([]string, error) {
		return nil, ParseFlags(fs, args, out, usage)
	},
	"checked": func(fs *flag.FlagSet, args []string, out io.Writer) ([]string, error) {
		return nil, ParseChecked(fs, args, out, usage, func() error {
			if level := fs.Lookup("level").Value.String(); level == "9" {
				return errors.New("--level 9 is too much")
			}
			return nil
		})
	},
}

func TestParse(t *testing.T) {
	help, shown := "help", "version"
	for _, tt := range []struct {
		parser, args string
		level        int
		words        string
		end          string // how it ends: help, version, what the error says, or empty
	}{
		{"words", "", 0, "", ""},
		{"words", "--level 3 create vm", 3, "create vm", ""},
		{"words", "create --level 3 vm", 3, "create vm", ""},
		{"words", "create vm -level=3", 3, "create vm", ""},
		{"words", "create vm --help", 0, "", help},
		{"words", "create --version vm", 0, "", shown},
		{"words", "create vm --lever", 0, "", "flag provided but not defined: -lever\nTry 'prog --help'."},
		{"first", "--level 3 create --level 4", 3, "create --level 4", ""},
		{"first", "-- --help", 0, "--help", ""},
		{"first", "-h", 0, "", help},
		{"flags", "--level 3", 3, "", ""},
		{"flags", "--level 3 more", 3, "", "unexpected argument \"more\"\nTry 'prog --help'."},
		{"flags", "--version", 0, "", shown},
		{"checked", "--level 8", 8, "", ""},
		{"checked", "--level 9", 9, "", "--level 9 is too much\nTry 'prog --help'."},
		{"checked", "--level 9 --help", 9, "", help},
		{"checked", "--level 9 more", 9, "", "unexpected argument \"more\"\nTry 'prog --help'."},
		{"flags", "--level x", 0, "", "Try 'prog --help'."},
	} {
		var out bytes.Buffer
		fs := Flags("prog")
		level := fs.Int("level", 0, "")
		words, err := parsers[tt.parser](fs, strings.Fields(tt.args), &out)
		switch tt.end {
		case "":
			if got := strings.Join(words, " "); err != nil || got != tt.words || *level != tt.level {
				t.Errorf("%s %q = %q, level %d, %v; want %q, %d", tt.parser, tt.args, got, *level, err, tt.words, tt.level)
			}
		case help, shown:
			want := map[string]string{help: usage, shown: "prog " + Version() + "\n"}[tt.end]
			if !errors.Is(err, flag.ErrHelp) || out.String() != want {
				t.Errorf("%s %q: %v, printed %q, want %q", tt.parser, tt.args, err, &out, want)
			}
		default:
			if !IsUsage(err) || !strings.HasSuffix(err.Error(), tt.end) || out.Len() > 0 {
				t.Errorf("%s %q: %v, printed %q; want an error %q", tt.parser, tt.args, err, &out, tt.end)
			}
		}
	}
}

func TestHint(t *testing.T) {
	if err := Hint("prog", nil); err != nil {
		t.Errorf("of no error: %v", err)
	}
	err := Hint("prog", io.EOF)
	if !IsUsage(err) || !errors.Is(err, io.EOF) || err.Error() != "EOF\nTry 'prog --help'." {
		t.Errorf("Hint(EOF) = %v", err)
	}
}

func TestEnd(t *testing.T) {
	own := func(err error) int {
		if errors.Is(err, io.EOF) {
			return 3
		}
		return ExitFailure
	}
	for _, tt := range []struct {
		err  error
		own  func(error) int
		want int
		says string
	}{
		{nil, own, ExitOK, ""},
		{fmt.Errorf("enrol: %w", flag.ErrHelp), own, ExitOK, ""},
		{io.EOF, nil, ExitFailure, "prog: EOF\n"},
		{io.EOF, own, 3, "prog: EOF\n"},
		{io.ErrNoProgress, own, ExitFailure, "prog: " + io.ErrNoProgress.Error() + "\n"},
		{fmt.Errorf("open: %w", Lasting(io.ErrNoProgress)), nil, ExitLasting, "prog: open: " + io.ErrNoProgress.Error() + "\n"},
		{Usagef("wrong: %w", io.EOF), own, ExitUsage, "prog: wrong: EOF\n"},
	} {
		var w bytes.Buffer
		if got := End(&w, "prog", tt.err, tt.own); got != tt.want || w.String() != tt.says {
			t.Errorf("End(%v) = %d, says %q; want %d, %q", tt.err, got, &w, tt.want, tt.says)
		}
	}
}
