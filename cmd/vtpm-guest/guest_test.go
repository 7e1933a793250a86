// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hwvtpm/guest/attester/guesttest"
	"hwvtpm/internal/cli"
	"hwvtpm/vtpm/attest"
	"hwvtpm/vtpm/door"
	"hwvtpm/vtpm/door/doorhttp"
)

var nonce = hex.EncodeToString([]byte("a nonce of the verifier, 32 long"))

// A machine enrols by its host, shows itself, attests, and renews when it is time.
func TestByTheHost(t *testing.T) {
	g := newGuest(t)
	via := g.listen()
	g.must(exitNotFound, "attest", "--nonce", nonce, "--via", via)
	if out := g.must(cli.ExitOK, "show"); !strings.Contains(out, "no certificate in NV") || !strings.Contains(out, "not enrolled") {
		t.Errorf("show:\n%s", out)
	}
	if _, err := os.Stat(g.path("state")); err == nil {
		t.Error("attest or show made a key")
	}
	g.must(cli.ExitOK, "enrol", "--via", via)
	if !slices.Contains(g.Requests(), door.OpEK) {
		t.Error("the host was not asked for the certificate that NV does not have")
	}
	first := g.show()
	if first.AIK == nil || first.AIK.VM != guesttest.VM || first.AIK.Due || time.Until(first.AIK.Ends) < time.Hour || first.EK == nil {
		t.Fatalf("show --json: %+v", first)
	}
	g.must(cli.ExitOK, "enrol", "--via", via, "--if-due")
	if again := g.show(); again.AIK.Serial != first.AIK.Serial {
		t.Error("--if-due renewed what was new")
	}
	g.must(cli.ExitOK, "enrol", "--via", via)
	if again := g.show(); again.AIK.Serial == first.AIK.Serial || again.AIK.Key != first.AIK.Key {
		t.Error("the second enrolment is no renewal of the same key")
	}
	for _, args := range [][]string{nil, {"--pcrs", "0-7,23", "--bank", "sha256"}, {"--pcr-map", "off", "--event-log", g.write("log", "a log")}} {
		out := g.must(cli.ExitOK, append([]string{"attest", "--nonce", nonce, "--via", via}, args...)...)
		ev, err := attest.Parse([]byte(out))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := hex.DecodeString(nonce)
		if err != nil {
			t.Fatal(err)
		}
		if name, err := attest.CheckMachine(&ev.VM, raw, g.Authority.Roots(), time.Now()); name != guesttest.VM || err != nil {
			t.Errorf("%v: %q, %v", args, name, err)
		}
	}
	if n := g.Loaded(); n != 0 {
		t.Errorf("%d objects and sessions stay in the TPM", n)
	}
}

func (g *guest) show() (s shown) {
	g.t.Helper()
	if err := json.Unmarshal([]byte(g.must(cli.ExitOK, "show", "--json")), &s); err != nil {
		g.t.Fatal(err)
	}
	return s
}

func TestByHTTPS(t *testing.T) {
	g := newGuest(t)
	s := httptest.NewTLSServer(doorhttp.Handler(g, nil))
	defer s.Close()
	ca := g.write("host.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	g.must(cli.ExitOK, "enrol", "--via", s.URL, "--ca", ca)
	out := g.must(cli.ExitOK, "attest", "--nonce", nonce, "--via", s.URL, "--ca", ca)
	if _, err := attest.Parse([]byte(out)); err != nil {
		t.Error(err)
	}
	s.Close()
	g.must(exitLater, "enrol", "--via", s.URL, "--ca", ca)
}

// A machine enrols at the real control server: by a token, and then by the records.
func TestAtTheControlServer(t *testing.T) {
	c, g := newCloud(t), newGuest(t)
	direct := []string{"enrol", "--control", c.url, "--control-ca", c.root()}
	g.must(exitNotFound, direct...) // no certificate of its EK
	c.certify(g)
	g.must(exitDenied, direct...)
	g.must(exitDenied, append(direct, "--token-file", g.write("wrong", "a token of nobody"))...)
	token := g.write("token", c.operator("token", "vtpm", guesttest.VM)+"\n")
	g.must(exitDenied, append(direct, "--token-file", token, "--name", "vm-2")...)
	g.must(cli.ExitOK, append(direct, "--token-file", token)...)
	first := g.show()
	if first.EK.VM != guesttest.VM || len(first.EK.Chain) != 2 || first.AIK.VM != guesttest.VM {
		t.Errorf("show: %+v", first)
	}
	g.must(cli.ExitOK, direct...)
	if again := g.show(); again.AIK.Key != first.AIK.Key || again.AIK.Serial == first.AIK.Serial {
		t.Error("no renewal of the same key")
	}
	c.operator("revoke", "vtpm", guesttest.VM)
	g.must(exitDenied, direct...)
	c.stop()
	g.must(exitLater, direct...)
	text, err := os.ReadFile(filepath.Join(g.path("state"), "aik.pem"))
	if err != nil || !strings.HasPrefix(string(text), "-----BEGIN CERTIFICATE") {
		t.Errorf("the certificate is gone: %v", err)
	}
}

func TestCommandLine(t *testing.T) {
	g := newGuest(t)
	none := g.path("none")
	for _, tc := range []struct {
		code int
		args string
	}{
		{cli.ExitUsage, ""}, {cli.ExitUsage, "dance"}, {cli.ExitUsage, "show more"}, {cli.ExitUsage, "show --via x"},
		{cli.ExitUsage, "attest"}, {cli.ExitUsage, "attest --nonce zz"}, {cli.ExitUsage, "attest --nonce 0011"},
		{cli.ExitUsage, "attest --nonce N --pcrs 7-0"}, {cli.ExitUsage, "attest --nonce N --pcrs 24"}, {cli.ExitUsage, "attest --nonce N --pcrs 1,"},
		{cli.ExitUsage, "attest --nonce N --bank md5"}, {cli.ExitUsage, "attest --nonce N --pcr-map maybe"},
		{cli.ExitUsage, "enrol --via floppy:a"}, {cli.ExitUsage, "enrol --via serial:"}, {cli.ExitUsage, "enrol --via vsock:2"},
		{cli.ExitUsage, "enrol --via vsock:x:1"}, {cli.ExitUsage, "enrol --via https://host"}, {cli.ExitUsage, "enrol --via unix:x --ca y"},
		{cli.ExitUsage, "enrol --control https://x"}, {cli.ExitUsage, "enrol --timeout -1s"}, {cli.ExitUsage, "show --tpm floppy"},
		{exitNotFound, "enrol --via unix:" + none}, {exitNotFound, "enrol --via serial:" + none}, {exitNotFound, "enrol --token-file " + none},
		{exitNotFound, "show --tpm " + none}, {exitNotFound, "attest --nonce N"},
		{cli.ExitOK, "--help"}, {cli.ExitOK, "enrol --help"}, {cli.ExitOK, "--version"},
	} {
		args := strings.Fields(strings.ReplaceAll(tc.args, "N ", nonce+" "))
		if last := len(args) - 1; last >= 0 && args[last] == "N" {
			args[last] = nonce
		}
		var out, errs strings.Builder
		if len(args) > 0 && !strings.HasPrefix(args[0], "--") && !slices.Contains(args, "--tpm") && !slices.Contains(args, "--timeout") {
			args = append(args, g.args...)
		} else if len(args) > 0 && !strings.HasPrefix(args[0], "--") {
			args = append(args, "--dir", g.path("state"))
		}
		if code := realMain(t.Context(), &console{&out, &errs}, args); code != tc.code {
			t.Errorf("%q: exit code %d, want %d: %s", tc.args, code, tc.code, errs.String())
		}
	}
}

func TestPCRLists(t *testing.T) {
	for text, want := range map[string][]uint{"0": {0}, "0-3": {0, 1, 2, 3}, "0-1,14,23": {0, 1, 14, 23}} {
		if got, err := parsePCRs(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-", "a", "1-", "-1", "2-1", "1,,2", "999"} {
		if got, err := parsePCRs(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
