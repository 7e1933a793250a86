// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// Flags makes the flags of a program, with --version. Package flag prints nothing of
// its own then: Parse does.
func Flags(program string) *flag.FlagSet {
	fs := flag.NewFlagSet(program, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	fs.Bool(version, false, "")
	return fs
}

// version is the flag that every program has.
const version = "version"

// Parse reads a command line whose flags stand before all other words. It prints the
// usage or the version to out if it is asked to, and gives flag.ErrHelp then: there is
// nothing more to do. A line that is wrong is an error of Hint. The flags are from Flags.
func Parse(fs *flag.FlagSet, args []string, out io.Writer, usage string) error {
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(out, usage)
		return err
	case err != nil:
		return Hint(fs.Name(), err)
	case fs.Lookup(version).Value.String() == "true":
		fmt.Fprintln(out, fs.Name(), Version())
		return flag.ErrHelp
	}
	return nil
}

// ParseWords is Parse for a command line whose flags may stand before, between and
// behind other words, and gives these words.
func ParseWords(fs *flag.FlagSet, args []string, out io.Writer, usage string) (words []string, err error) {
	for {
		if err := Parse(fs, args, out, usage); err != nil {
			return nil, err
		}
		if fs.NArg() == 0 {
			return words, nil
		}
		words, args = append(words, fs.Arg(0)), fs.Args()[1:]
	}
}

// ParseFlags is Parse for a program that takes flags only.
func ParseFlags(fs *flag.FlagSet, args []string, out io.Writer, usage string) error {
	if err := Parse(fs, args, out, usage); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return Hint(fs.Name(), fmt.Errorf("unexpected argument %q", fs.Arg(0)))
	}
	return nil
}

// ParseChecked is ParseFlags for a program that checks what the flags gave: an error of
// check is one of Hint.
func ParseChecked(fs *flag.FlagSet, args []string, out io.Writer, usage string, check func() error) error {
	if err := ParseFlags(fs, args, out, usage); err != nil {
		return err
	}
	return Hint(fs.Name(), check())
}

// Hint makes an error that of a command line which is wrong, and has it say where there
// is help. Of nil it makes nil.
func Hint(program string, err error) error {
	if err == nil {
		return nil
	}
	return Usagef("%w\nTry '%s --help'.", err, program)
}
