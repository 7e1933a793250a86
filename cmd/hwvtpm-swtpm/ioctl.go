// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

const ioctlUsage = `Usage: swtpm_ioctl --unix PATH | --tcp [HOST]:[PORT] COMMAND

Gives one command on the control channel of a running TPM, whether it is of
'swtpm socket' or of 'vhost-user-vtpm --tpm-emulator-socket'.

  -c                  what the TPM's server can do
  -i                  start the TPM, as a reset of the machine does
  --stop              stop the TPM
  -s                  end the server
  -e, -r LOCALITY     get or reset the tpmEstablished bit
  -v                  store the volatile state
  -C                  cancel the command that runs
  -l LOCALITY         set the locality of commands
  -h DATA             hash DATA ('-' for standard input) into PCR 17
  -g                  which keys the state is encrypted with
  -b SIZE             set the size of the buffer; 0 asks for it
  --info FLAGS        what the TPM says of itself
  --save TYPE FILE, --load TYPE FILE
                      a part of the state, which leaves sealed: permanent,
                      volatile or savestate
  --lock-storage RETRIES
  --version, --help
`

// ioctlConfig is the command line of swtpm_ioctl.
type ioctlConfig struct {
	network, address string
	run              func(*console, *control) error
}

// set chooses the command.
func (c *ioctlConfig) set(run func(*console, *control) error) error {
	if c.run != nil {
		return errors.New("only one command may be given")
	}
	c.run = run
	return nil
}

// plain are the commands without an argument and an answer.
var plain = map[string]struct {
	request request
	body    []byte
}{
	"-i":     {cmdInit, make([]byte, 4)},
	"--stop": {cmdStop, nil},
	"-s":     {cmdShutdown, nil},
	"-v":     {cmdStoreVolatile, nil},
	"-C":     {cmdCancelTPMCmd, nil},
}

// answering are those without an argument, and with an answer.
var answering = map[string]func(*console, *control) error{
	"-c": getCapability, "-e": getEstablished, "-g": getConfig,
}

// numeric are those with a number.
var numeric = map[string]func(*console, *control, uint64) error{
	"-r": resetEstablished, "-l": setLocality, "-b": setBufferSize, "--info": getInfo,
	"--lock-storage": func(_ *console, c *control, n uint64) error {
		_, err := c.ask(cmdLockStorage, order.AppendUint32(nil, uint32(n)), 0)
		return err
	},
}

// swtpmIoctl is the program swtpm_ioctl.
func swtpmIoctl(_ context.Context, con *console, args []string) error {
	cfg, err := parseIoctl(con, args)
	if err != nil {
		return err
	}
	conn, err := net.Dial(cfg.network, cfg.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	return cfg.run(con, &control{conn: conn})
}

func parseIoctl(con *console, args []string) (*ioctlConfig, error) {
	c := &ioctlConfig{}
	for len(args) > 0 {
		n, err := c.word(con, args)
		if err != nil {
			return nil, err
		}
		args = args[n:]
	}
	switch {
	case c.run == nil:
		return nil, errors.New("no command is given (see --help)")
	case c.network == "":
		return nil, errors.New("give the TPM's control channel: --unix PATH or --tcp HOST:PORT (a character device is not supported)")
	}
	return c, nil
}

// word reads an option with its values, and says how many words that are.
func (c *ioctlConfig) word(con *console, args []string) (int, error) {
	name := args[0]
	if p, ok := plain[name]; ok {
		return 1, c.set(func(_ *console, ctl *control) error {
			_, err := ctl.ask(p.request, p.body, 0)
			return err
		})
	}
	if run := answering[name]; run != nil {
		return 1, c.set(run)
	}
	switch name {
	case "--version":
		return 0, printVersion(con)
	case "--help":
		io.WriteString(con.out, ioctlUsage)
		return 0, errPrinted
	case "--save", "--load":
		if len(args) < 3 {
			return 0, fmt.Errorf("%s needs a type and a file", name)
		}
		return 3, c.setBlob(name, args[1], args[2])
	}
	if name, value, ok := strings.Cut(name, "="); ok {
		return 1, c.valued(name, value)
	}
	if len(args) < 2 {
		return 0, fmt.Errorf("option %q is not known, or needs a value (see --help)", name)
	}
	return 2, c.valued(name, args[1])
}

// valued reads an option with one value.
func (c *ioctlConfig) valued(name, value string) error {
	if run := numeric[name]; run != nil {
		n, err := strconv.ParseUint(value, 0, 32)
		if err != nil {
			return fmt.Errorf("%s %q: not a number", name, value)
		}
		if name == "-l" && n > 4 || name == "-r" && n > 4 {
			return errors.New("locality outside valid range of [0..4]")
		}
		return c.set(func(con *console, ctl *control) error { return run(con, ctl, n) })
	}
	switch name {
	case "--unix":
		c.network, c.address = "unix", value
	case "--tcp":
		return c.setTCP(value)
	case "-h":
		return c.set(func(con *console, ctl *control) error { return hash(con, ctl, value) })
	case "--tpm-device":
		return errors.New("--tpm-device is not supported: there is no character device")
	default:
		return fmt.Errorf("option %q is not known (see --help)", name)
	}
	return nil
}

func (c *ioctlConfig) setTCP(value string) error {
	i := strings.LastIndex(value, ":")
	if i < 0 {
		return fmt.Errorf("--tcp %q is not of the form HOST:PORT", value)
	}
	host, port := value[:i], value[i+1:]
	if host == "" {
		host = "127.0.0.1"
	}
	if port == "" {
		port = "6546"
	}
	c.network, c.address = "tcp", net.JoinHostPort(strings.Trim(host, "[]"), port)
	return nil
}

// blobKinds are the parts of the state.
var blobKinds = map[string]uint32{"permanent": 1, "volatile": 2, "savestate": 3}

func (c *ioctlConfig) setBlob(name, kind, file string) error {
	k, ok := blobKinds[kind]
	if !ok {
		return fmt.Errorf("unknown TPM state type %q", kind)
	}
	if name == "--save" {
		return c.set(func(_ *console, ctl *control) error { return saveBlob(ctl, k, file) })
	}
	return c.set(func(_ *console, ctl *control) error { return loadBlob(ctl, k, file) })
}

// hash gives data to PCR 17 as a dynamic launch does.
func hash(con *console, c *control, data string) error {
	text := []byte(data)
	if data == "-" {
		var err error
		if text, err = io.ReadAll(con.in); err != nil {
			return err
		}
	}
	if _, err := c.ask(cmdHashStart, nil, 0); err != nil {
		return err
	}
	for len(text) > 0 {
		n := min(len(text), 4096)
		body := append(order.AppendUint32(nil, uint32(n)), text[:n]...)
		if _, err := c.ask(cmdHashData, body, 0); err != nil {
			return err
		}
		text = text[n:]
	}
	_, err := c.ask(cmdHashEnd, nil, 0)
	return err
}

// maxBlob bounds a part of the state, in bytes.
const maxBlob = 512 << 10

// saveBlob writes a part of the state to a new file, or replaces one.
func saveBlob(c *control, kind uint32, file string) error {
	body := order.AppendUint32(nil, 1) // as QEMU asks; what comes is sealed all the same
	body = order.AppendUint32(order.AppendUint32(body, kind), 0)
	head, err := c.ask(cmdGetStateBlob, body, 12)
	if err != nil {
		return err
	}
	size := order.Uint32(head[8:])
	if size > maxBlob {
		return fmt.Errorf("state of %d bytes", size)
	}
	blob, err := c.read(cmdGetStateBlob, int(size))
	if err != nil {
		return err
	}
	return os.WriteFile(file, blob, 0o600)
}

func loadBlob(c *control, kind uint32, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	blob, err := io.ReadAll(io.LimitReader(f, maxBlob+1))
	if err != nil {
		return err
	}
	if len(blob) > maxBlob {
		return fmt.Errorf("%s has more than %d bytes", file, maxBlob)
	}
	// No flags, as with swtpm: the state itself says how it is sealed.
	body := order.AppendUint32(order.AppendUint32(nil, 0), kind)
	body = order.AppendUint32(body, uint32(len(blob)))
	_, err = c.ask(cmdSetStateBlob, append(body, blob...), 0)
	return err
}
