// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// option is one of a command line.
type option struct {
	names []string // with their dashes
	// Exactly one of these.
	flag  *bool
	value func(string) error // the option has a value
	word  *string            // the same, kept as it is
	not   string             // the option is refused, and why
}

// parseOptions reads a command line as getopt_long(3) does, but for abbreviated
// names. What is no option is an error.
func parseOptions(args []string, options []option) error {
	for len(args) > 0 {
		name, value, joined := strings.Cut(args[0], "=")
		if !strings.HasPrefix(name, "--") {
			name, joined = args[0], false
		}
		i := slices.IndexFunc(options, func(o option) bool { return slices.Contains(o.names, name) })
		if i < 0 {
			return fmt.Errorf("option %q is not known (see --help)", args[0])
		}
		o := options[i]
		args = args[1:]
		switch {
		case o.not != "":
			return fmt.Errorf("%s is not supported: %s", name, o.not)
		case o.flag != nil && joined:
			return fmt.Errorf("%s takes no value", name)
		case o.flag != nil:
			*o.flag = true
			continue
		case !joined && len(args) == 0:
			return fmt.Errorf("%s needs a value", name)
		case !joined:
			value, args = args[0], args[1:]
		}
		if o.word != nil {
			*o.word = value
		} else if err := o.value(value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// refuse makes an option that is refused.
func refuse(why string, names ...string) option { return option{names: names, not: why} }

// parameters are the parts of an option's value: key=value, or a key alone.
type parameters map[string]string

// parseParameters takes a value apart. What is not among known is an error.
func parseParameters(text string, known ...string) (parameters, error) {
	p := parameters{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(part, "=")
		if !slices.Contains(known, key) {
			return nil, fmt.Errorf("%q is not supported (but %s)", part, strings.Join(known, ", "))
		}
		p[key] = value
	}
	return p, nil
}

func (p parameters) has(key string) bool {
	_, ok := p[key]
	return ok
}

// number gives a parameter that is a number, or none if it is not there.
func (p parameters) number(key string, none int) (int, error) {
	if !p.has(key) {
		return none, nil
	}
	n, err := strconv.Atoi(p[key])
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s=%q is no number", key, p[key])
	}
	return n, nil
}

// mode gives a parameter that is a file's mode.
func (p parameters) mode(none os.FileMode) (os.FileMode, error) {
	if !p.has("mode") {
		return none, nil
	}
	n, err := strconv.ParseUint(p["mode"], 8, 32)
	if err != nil || n&^0o777 != 0 {
		return 0, fmt.Errorf("mode=%q is no octal file mode", p["mode"])
	}
	return os.FileMode(n), nil
}
