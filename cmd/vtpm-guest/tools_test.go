// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"hwvtpm/control/client"
	"hwvtpm/guest/attester/guesttest"
	"hwvtpm/vtpm/attest"
	"hwvtpm/vtpm/door"
	"hwvtpm/vtpm/door/doorhttp"
)

// judge is a host's door that says whose evidence it was shown.
type judge struct {
	nonce string
	roots *x509.CertPool
}

func (j judge) Do(_ context.Context, _ door.Caller, _ string, body json.RawMessage) (any, error) {
	var req door.EvidenceRequest
	if err := door.Decode(body, &req); err != nil {
		return nil, err
	}
	var m attest.Machine
	if err := door.Decode(req.VM, &m); err != nil {
		return nil, err
	}
	if hex.EncodeToString(req.Nonce) != j.nonce {
		return nil, door.Errorf(door.CodeDenied, "another nonce")
	}
	vm, err := attest.CheckMachine(&m, req.Nonce, j.roots, time.Now())
	if err != nil {
		return nil, door.Errorf(door.CodeDenied, "%w", err)
	}
	return vm, nil
}

// agree is swtpm's control channel, where the tools set the locality: a command, and a
// result that is zero.
func agree(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 64))
			c.Write(make([]byte, 4))
			c.Close()
		}
	}()
}

// manager does between two tools what the kernel's resource manager does.
const manager = `
for tool in createek createak activatecredential quote; do
    eval "tpm2_$tool() { command tpm2_$tool \"\$@\" && tpm2_flushcontext -t; }"
done
`

// The recipe of docs/guest.md for doing without this program works as it stands.
func TestRecipe(t *testing.T) {
	if os.Getenv("HWVTPM_TEST_ROOT") != "1" {
		t.Skip("needs tpm2-tools, curl, jq and openssl: set HWVTPM_TEST_ROOT=1 (tier test-root)")
	}
	for _, tool := range []string{"tpm2_createek", "curl", "jq", "openssl", "xxd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	text, err := os.ReadFile("../../docs/guest.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) != 2 {
		t.Fatalf("docs/guest.md has %d scripts, want 2", len(blocks))
	}
	c, g := newCloud(t), newGuest(t)
	c.certify(g)
	socket := strings.TrimPrefix(g.args[1], "swtpm:")
	agree(t, socket+".ctrl")
	roots, err := client.ReadRoots(c.root())
	if err != nil {
		t.Fatal(err)
	}
	host := httptest.NewTLSServer(doorhttp.Handler(judge{nonce, roots}, nil))
	defer host.Close()
	g.write("auth", "Authorization: Bearer "+c.operator("token", "vtpm", guesttest.VM)+"\n")
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", manager+string(blocks[0][1])+string(blocks[1][1]))
	cmd.Dir = g.dir
	cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:path="+socket, "VM="+guesttest.VM, "CONTROL="+c.url,
		"ROOT="+c.root(), "NONCE="+nonce, "HOST="+host.URL,
		"HOST_CA="+g.write("host.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: host.Certificate().Raw}))))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, err := os.ReadFile(filepath.Join(g.dir, "evidence.json"))
	if err != nil || string(got) != `"`+guesttest.VM+`"` {
		t.Errorf("the host says %s, %v", got, err)
	}
}
