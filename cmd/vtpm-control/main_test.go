// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/api"
	"hwvtpm/control/ca"
	"hwvtpm/control/controltest"
	"hwvtpm/control/enrol"
	"hwvtpm/control/operator"
	"hwvtpm/control/store"
	"hwvtpm/internal/cli"
)

func TestMain(m *testing.M) { os.Exit(controltest.Main(m)) }

// hang is when a test gives up on the server.
const hang = time.Minute

// run runs the program and gives its exit code and output.
func run(ctx context.Context, dir string, args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	con := &console{out: &o, err: &e, getenv: func(string) string { return dir }}
	return realMain(ctx, con, args), o.String(), e.String()
}

// must runs it and fails unless it succeeds.
func must(t *testing.T, dir string, args ...string) string {
	t.Helper()
	code, out, errs := run(t.Context(), dir, args...)
	if code != cli.ExitOK {
		t.Fatalf("%v: exit code %d: %s", args, code, errs)
	}
	return out
}

func newDir(t *testing.T) string {
	t.Helper()
	parent, err := os.MkdirTemp("", "control") // short, for the socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	dir := filepath.Join(parent, "d")
	must(t, dir, "init", "test")
	return dir
}

// output is what the server says, which goes on while the test reads it.
type output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// serve starts the server and gives its URL; stop ends it.
func serve(t *testing.T, dir string) (url string, stop func()) {
	t.Helper()
	var log output
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() {
		con := &console{out: io.Discard, err: &log, getenv: func(string) string { return dir }}
		done <- realMain(ctx, con, []string{"serve", "--listen", "127.0.0.1:0", "--name", "127.0.0.1", "--url", "http://crl.example"})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if code := <-done; code != cli.ExitOK {
			t.Errorf("serve: exit code %d: %s", code, log.String())
		}
	})
	t.Cleanup(stop)
	address := regexp.MustCompile(`address=(\S+)`)
	for deadline := time.Now().Add(hang); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if m := address.FindStringSubmatch(log.String()); m != nil {
			return "https://" + m[1], stop
		}
	}
	t.Fatalf("the server does not come up: %s", log.String())
	return "", nil
}

// client trusts the authority in dir.
func client(t *testing.T, dir string) *http.Client {
	t.Helper()
	a, err := ca.Load(filepath.Join(dir, "ca"), ca.FileKeys{Dir: filepath.Join(dir, "keys")}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.Roots()}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// post sends JSON with a token and reads JSON.
func post(t *testing.T, c *http.Client, url, token string, in, out any) int {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

// A host enrols at a running server, with a token of its operator, who then takes
// the certificate back; another verifier notices.
func TestLife(t *testing.T) {
	dir := newDir(t)
	tpm := controltest.StartSim(t)
	ek, ak := tpm.EK(tpm2.RSAEKTemplate), tpm.AK(nil)
	made, err := ca.Create(filepath.Join(dir, "manufacturers"), "maker", ca.FileKeys{Dir: t.TempDir()}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	template, err := ca.VTPMEK("serial", ca.Model{Manufacturer: "id:00001014", Model: "m", Version: "id:1", Family: "2.0"}, ek.Crypto, ca.Validity{Now: time.Now(), Life: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ekCert, err := made.Root.Issue(template, ek.Crypto)
	if err != nil {
		t.Fatal(err)
	}
	url, stop := serve(t, dir)
	c := client(t, dir)
	token := strings.TrimSpace(must(t, dir, "token", "host", "host-1"))
	var challenge enrol.Challenge
	req := enrol.Request{Kind: store.KindHost, Name: "host-1", EKCertificate: ekCert.Raw, AKPublic: ak.TPMT()}
	if status := post(t, c, url+"/v1/enrol", token, req, &challenge); status != http.StatusCreated {
		t.Fatalf("enrol: status %d", status)
	}
	secret, err := tpm.Activate(ek, ak, challenge.Blob, challenge.Secret)
	if err != nil {
		t.Fatal(err)
	}
	var got api.Certified
	if status := post(t, c, url+"/v1/enrol/"+challenge.ID, token, api.Proof{Secret: secret}, &got); status != http.StatusOK {
		t.Fatalf("prove: status %d", status)
	}
	cert, err := ca.ParsePEM([]byte(got.Certificate))
	if err != nil || cert[0].CRLDistributionPoints[0] != "http://crl.example/v1/crl/attestation" {
		t.Fatalf("certificate: %v", err)
	}
	serial := enrol.SerialText(cert[0])
	if out := must(t, dir, "list", "hosts"); !strings.Contains(out, "host-1  "+serial) {
		t.Errorf("list hosts:\n%s", out)
	}
	opensslVerifies(t, dir, got, true)
	if out := must(t, dir, "revoke", "host", "host-1", "--why", "key-compromise"); out != serial+"\n" {
		t.Errorf("revoke says %q, want %s", out, serial)
	}
	opensslVerifies(t, dir, got, false)
	if out := must(t, dir, "list", "certificates"); !strings.Contains(out, "revoked") {
		t.Errorf("list certificates:\n%s", out)
	}
	if code, _, errs := run(t.Context(), dir, "serve", "--name", "x"); code != exitInUse {
		t.Errorf("a second server: exit code %d: %s", code, errs)
	}
	stop()
	var records []store.Host
	if err := json.Unmarshal([]byte(must(t, dir, "list", "hosts", "--json")), &records); err != nil || len(records) != 0 {
		t.Errorf("without a server: %v, %v", records, err)
	}
	if out := must(t, dir, "audit"); !strings.HasPrefix(out, "5 lines") {
		t.Errorf("audit: %s", out)
	}
}

// opensslVerifies checks a certificate against the authority's own lists, where
// openssl is.
func opensslVerifies(t *testing.T, dir string, got api.Certified, good bool) {
	t.Helper()
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Log("set HWVTPM_TEST_ROOT=1 to have openssl judge the certificate")
		return
	}
	files := map[string]string{"cert": got.Certificate, "chain": got.Chain, "crl": must(t, dir, "crl", "root") + must(t, dir, "crl", "attestation")}
	tmp := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(tmp, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("openssl", "verify", "-x509_strict", "-crl_check_all", "-CAfile", filepath.Join(dir, "ca", "root.pem"),
		"-untrusted", filepath.Join(tmp, "chain"), "-CRLfile", filepath.Join(tmp, "crl"), filepath.Join(tmp, "cert")).CombinedOutput()
	if (err == nil) != good {
		t.Errorf("openssl verify: %v, want success %v\n%s", err, good, out)
	}
}

func TestExitCodes(t *testing.T) {
	dir := newDir(t)
	hash := strings.Repeat("ab", 32)
	for _, tc := range []struct {
		code int
		args string
	}{
		{cli.ExitUsage, ""}, {cli.ExitUsage, "dance"}, {cli.ExitUsage, "token host"}, {cli.ExitUsage, "token host h --why x"}, {cli.ExitUsage, "--nonsense"},
		{cli.ExitUsage, "token planet h"}, {cli.ExitUsage, "token host h --life -1h"}, {cli.ExitUsage, "allow host h zz"}, {cli.ExitUsage, "list everything"},
		{cli.ExitUsage, "revoke host h --why boredom"}, {cli.ExitUsage, "serve"}, {cli.ExitUsage, "serve --name x --url ftp://x"}, {cli.ExitUsage, "init a/b"}, {cli.ExitUsage, "init x --pkcs11 m --dir /nonexistent/x"},
		{exitNotFound, "revoke serial ff"}, {exitNotFound, "crl nobody"}, {cli.ExitFailure, "init again"}, {cli.ExitFailure, "key-hash /dev/null"},
		{cli.ExitFailure, "list hosts --dir /nonexistent"},
		{cli.ExitOK, "--help"}, {cli.ExitOK, "--version"}, {cli.ExitOK, "allow vtpm v " + hash}, {cli.ExitOK, "deny " + hash + " --reason lost"},
		{cli.ExitOK, "pin h " + hash}, {cli.ExitOK, "list policy"}, {cli.ExitOK, "list vms --json"}, {cli.ExitOK, "list tokens"}, {cli.ExitOK, "crl service"},
	} {
		if code, _, errs := run(t.Context(), dir, strings.Fields(tc.args)...); code != tc.code {
			t.Errorf("%q: exit code %d, want %d: %s", tc.args, code, tc.code, errs)
		}
	}
}

func TestToken(t *testing.T) {
	dir := newDir(t)
	var tok operator.Token
	if err := json.Unmarshal([]byte(must(t, dir, "token", "vtpm", "vm-1", "--json", "--life", "2h")), &tok); err != nil {
		t.Fatal(err)
	}
	if len(tok.Token) != 64 || tok.Name != "vm-1" || time.Until(tok.Expires) > 2*time.Hour {
		t.Errorf("token %+v", tok)
	}
	for _, file := range []string{"store.db", "audit.log"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || bytes.Contains(text, []byte(tok.Token)) {
			t.Errorf("%s has the token in clear (%v)", file, err)
		}
	}
}

// Whoever cuts the audit log off is found out before the store is used again.
func TestAuditCutOff(t *testing.T) {
	dir := newDir(t)
	must(t, dir, "token", "host", "h")
	if err := os.Truncate(filepath.Join(dir, "audit.log"), 0); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := run(t.Context(), dir, "list", "hosts"); code != cli.ExitFailure || !strings.Contains(errs, "audit") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}
