// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/ca"
	"hwvtpm/control/client"
	"hwvtpm/control/controltest"
	"hwvtpm/control/enrol"
	"hwvtpm/control/store"
	"hwvtpm/coproc/abi"
	"hwvtpm/coproc/coproctest/programs"
	"hwvtpm/guest/attester/guesttest"
	"hwvtpm/vtpm/door"
)

// hang is when a test gives up on a program.
const hang = time.Minute

// built is the control server.
var built = programs.New("vtpm-control")

func TestMain(m *testing.M) { os.Exit(controltest.Main(m, built)) }

// guest is a machine in which the program runs.
type guest struct {
	*guesttest.Rig
	t    *testing.T
	dir  string
	args []string
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	dir, err := os.MkdirTemp("", "guest") // short, for the socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	g := &guest{Rig: guesttest.New(t), t: t, dir: dir}
	g.args = []string{"--tpm", "swtpm:" + g.Listen(), "--dir", g.path("state"), "--timeout", "1m"}
	return g
}

func (g *guest) path(name string) string { return filepath.Join(g.dir, name) }

// run runs the program and gives its exit code and output.
func (g *guest) run(args ...string) (code int, out, errs string) {
	g.t.Helper()
	var o, e bytes.Buffer
	code = realMain(g.t.Context(), &console{out: &o, err: &e}, append(args, g.args...))
	return code, o.String(), e.String()
}

// must runs it and fails unless its exit code is as expected.
func (g *guest) must(want int, args ...string) string {
	g.t.Helper()
	code, out, errs := g.run(args...)
	if code != want {
		g.t.Fatalf("%v: exit code %d, want %d: %s", args, code, want, errs)
	}
	return out
}

// listen opens the host's door at a UNIX socket.
func (g *guest) listen() string {
	g.t.Helper()
	l, err := net.Listen("unix", g.path("door"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go door.Serve(g.t.Context(), c, door.Caller{VM: guesttest.VM, UID: -1}, g)
		}
	}()
	return "unix:" + g.path("door")
}

// cloud is a control server that runs, with a host that enrolled.
type cloud struct {
	t    *testing.T
	dir  string
	url  string
	stop func()
	host *ca.Issuer // the host's AIK
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	dir, err := os.MkdirTemp("", "cloud") // short, for the socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &cloud{t: t, dir: filepath.Join(dir, "d")}
	c.operator("init", "test")
	maker, err := ca.Create(filepath.Join(c.dir, "manufacturers"), "maker", ca.FileKeys{Dir: t.TempDir()}, time.Now())
	c.fatal(err)
	c.serve()
	c.host = c.newHost(maker.Root)
	return c
}

func (c *cloud) fatal(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cloud) command(args ...string) *exec.Cmd {
	return exec.Command(built.Path(c.t, "vtpm-control"), append([]string{"--dir", c.dir}, args...)...)
}

// operator gives the server a command.
func (c *cloud) operator(args ...string) string {
	c.t.Helper()
	out, err := c.command(args...).Output()
	if err != nil {
		c.t.Fatalf("vtpm-control %v: %v", args, err)
	}
	return strings.TrimSpace(string(out))
}

func (c *cloud) root() string { return filepath.Join(c.dir, "ca", "root.pem") }

func (c *cloud) serve() {
	c.t.Helper()
	log, err := os.Create(c.dir + ".log")
	c.fatal(err)
	defer log.Close()
	cmd := c.command("serve", "--listen", "127.0.0.1:0", "--name", "127.0.0.1")
	cmd.Stderr = log
	c.fatal(cmd.Start())
	c.stop = sync.OnceFunc(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			c.t.Errorf("vtpm-control serve: %v", err)
		}
	})
	c.t.Cleanup(c.stop)
	address := regexp.MustCompile(`address=(\S+)`)
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(log.Name())
		c.fatal(err)
		if m := address.FindSubmatch(text); m != nil {
			c.url = "https://" + string(m[1])
			return
		}
	}
	c.t.Fatal("vtpm-control does not come up")
}

// newHost enrols a host, and gives its AIK as the issuer of its cards.
func (c *cloud) newHost(maker *ca.Issuer) *ca.Issuer {
	c.t.Helper()
	tpm := controltest.StartSim(c.t)
	ek, ak := tpm.EK(tpm2.ECCEKTemplate), tpm.AK(nil)
	roots, err := client.ReadRoots(c.root())
	c.fatal(err)
	server, err := client.New(client.Config{URL: c.url, Roots: roots})
	c.fatal(err)
	defer server.Close()
	ekCert := c.issue(maker, ek.Crypto)(ca.VTPMEK("serial", ca.Model{Manufacturer: "id:00001014", Model: "m", Version: "id:1", Family: "2.0"}, ek.Crypto, hour()))
	challenge, err := server.Enrol(c.t.Context(), &enrol.Request{
		Kind: store.KindHost, Name: "host-1", EKCertificate: ekCert.Raw, AKPublic: ak.TPM2B(),
	}, c.operator("token", "host", "host-1"))
	c.fatal(err)
	secret, err := tpm.Activate(ek, ak, challenge.Blob, challenge.Secret)
	c.fatal(err)
	got, err := server.Prove(c.t.Context(), challenge.ID, secret)
	c.fatal(err)
	return &ca.Issuer{Certificate: got.AIK, Signer: tpm.Signer(ak)}
}

func hour() ca.Validity { return ca.Validity{Now: time.Now(), Life: time.Hour} }

func (c *cloud) issue(i *ca.Issuer, key any) func(*x509.Certificate, error) *x509.Certificate {
	return func(template *x509.Certificate, err error) *x509.Certificate {
		c.t.Helper()
		c.fatal(err)
		cert, err := i.Issue(template, key)
		c.fatal(err)
		return cert
	}
}

// certify has a card of the cloud's host certify a guest's EK, and write that to NV.
func (c *cloud) certify(g *guest) {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	c.fatal(err)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	c.fatal(err)
	serial := abi.SerialOf(spki)
	card := c.issue(c.host, key.Public())(ca.CoprocessorAIK(hex.EncodeToString(serial[:]), hour()))
	ek := g.Certify(&ca.Issuer{Certificate: card, Signer: key})
	g.Write(tpm2.TPMHandle(abi.IndexP256EK), ek.Raw)
	g.Write(tpm2.TPMHandle(abi.IndexEKChain), append(bytes.Clone(card.Raw), c.host.Certificate.Raw...))
}

// write makes a file of the guest's.
func (g *guest) write(name, text string) string {
	g.t.Helper()
	if err := os.WriteFile(g.path(name), []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
	return g.path(name)
}
