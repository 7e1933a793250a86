// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hwvtpm/coproc/abi/ekcert/ekcerttest"
	"hwvtpm/coproc/admin"
	"hwvtpm/coproc/coprocd"
	"hwvtpm/coproc/coproctest/swtpmtest"
)

// certify gives the daemon's card certificates, and puts the root's into root.pem.
func (r *toolsRig) certify(a *ekcerttest.Authority) {
	r.t.Helper()
	conn, err := coprocd.Dial(r.t.Context(), r.dir+"/s")
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	c := admin.New(conn)
	key, err := c.CardKey(r.t.Context())
	if err == nil {
		err = c.SetCertificates(r.t.Context(), a.Certify(r.t, key.DER, nil))
	}
	if err == nil {
		root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Root.Raw})
		err = os.WriteFile(filepath.Join(r.dir, "root.pem"), root, 0o600)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// verifyEKs reads the certificate of each endorsement key and the chain by
// tpm2-tools, and has OpenSSL verify them and hold the keys against each other.
const verifyEKs = `
index=0x01c00100
: >chain.der
while tpm2_nvread $index -o part 2>/dev/null; do cat part >>chain.der; index=$(printf 0x%08x $((index+1))); done
test -s chain.der
while test -s chain.der; do # one certificate after the other
    n=$(( $(od -An -tu1 -j2 -N1 chain.der) * 256 + $(od -An -tu1 -j3 -N1 chain.der) + 4 ))
    head -c $n chain.der | openssl x509 -inform DER >>chain.pem
    tail -c +$((n+1)) chain.der >rest; mv rest chain.der
done
for pair in 0x01c00002:0x81010001 0x01c0000a:0x8101000a 0x01c00016:0x81010016; do
    tpm2_nvread ${pair%:*} -o ek.der
    openssl x509 -inform DER -in ek.der -out ek.pem
    openssl verify -ignore_critical -CAfile $ROOT -untrusted chain.pem ek.pem
    openssl x509 -in ek.pem -noout -enddate -ext subjectAltName,extendedKeyUsage
    openssl x509 -in ek.pem -noout -pubkey >certified.pem
    tpm2_readpublic -Q -c ${pair#*:} -f pem -o key.pem
    cmp <(openssl pkey -pubin -in certified.pem -outform DER) <(openssl pkey -pubin -in key.pem -outform DER)
done
`

// A guest's own tools find the certificates, and nobody in it changes them.
func TestToolsFindCertificates(t *testing.T) {
	r := newToolsRig(t)
	a := ekcerttest.New(t)
	r.sh("vtpmctl slot create vm")
	r.certify(a)
	r.env = append(r.env, "ROOT="+r.dir+"/root.pem")
	contains(t, r.sh("vtpmctl slot show vm"), "not certified")
	r.sh("tpm2_shutdown -c; vtpmctl slot certify vm")
	r.env = append(r.env, "TPM2TOOLS_TCTI=cmd:vtpmctl raw --slot vm --run-id next") // the run before is over
	out := r.sh(verifyEKs)
	contains(t, out, "ek.pem: OK", "Dec 31 23:59:59 9999 GMT", "URI:urn:hwvtpm:vm:vm", "2.23.133.8.1")
	if n := bytes.Count([]byte(out), []byte("ek.pem: OK")); n != 3 {
		t.Errorf("%d of 3 certificates verify:\n%s", n, out)
	}
	contains(t, r.sh("vtpmctl slot show vm"), "NV 0x01c00002", "NV 0x01c0000a", "NV 0x01c00016")
	contains(t, r.sh("tpm2_nvreadpublic 0x01c0000a"), "ppwrite|writelocked|writedefine|ppread|ownerread|authread|no_da|written|platformcreate")
	r.sh(`for who in o p; do ! printf x | tpm2_nvwrite -C $who -i - 0x01c0000a; done; ! tpm2_nvundefine -C o 0x01c0000a`)
	r.sh("vtpmctl slot clone vm copy --new-identity")
	r.env = append(r.env, "TPM2TOOLS_TCTI=cmd:vtpmctl raw --slot copy")
	contains(t, r.sh(verifyEKs), "ek.pem: OK", "URI:urn:hwvtpm:vm:copy")
}

// TestImportKeepsCertificates: what a TPM's maker wrote into its NV stays there, as
// it is imported and when it is certified. The card's own certificates are beside.
func TestImportKeepsCertificates(t *testing.T) {
	r := newToolsRig(t)
	r.certify(ekcerttest.New(t))
	dir := swtpmtest.Dir(t)
	if _, err := swtpmtest.Manufacture(dir); err != nil {
		t.Fatal(err)
	}
	r.sh("vtpmctl import-swtpm vm --state " + dir + "/tpm")
	read := "tpm2_nvread 0x01c00002 | sha256sum; tpm2_nvread 0x01c00016 | sha256sum; tpm2_getcap handles-nv-index"
	before := r.sh(read + "; tpm2_shutdown -c")
	if strings.Contains(before, "0x1C00100") {
		t.Errorf("the import has written a chain:\n%s", before)
	}
	contains(t, r.sh("vtpmctl slot show vm"), "not in the TPM, issued by card")
	contains(t, r.sh("vtpmctl slot certify vm"), "not in the TPM, issued by card")
	r.env = append(r.env, "TPM2TOOLS_TCTI=cmd:vtpmctl raw --slot vm --run-id next")
	if after := r.sh(read); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	contains(t, r.sh("tpm2_nvread 0x01c00002 | openssl x509 -inform DER -noout -issuer"), "swtpm-localca")
}
