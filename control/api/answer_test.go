// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"

	"hwvtpm/control/ca"
	"hwvtpm/control/controltest"
	"hwvtpm/control/enrol"
	"hwvtpm/control/store"
	"hwvtpm/coproc/abi"
	"hwvtpm/vtpm/attest"
)

// answering is a machine that enrolled, and what its host answers with.
type answering struct {
	r       *rig
	host    *host
	tpm     *controltest.TPM
	ek, ak  *controltest.Key
	cardKey *ecdsa.PrivateKey
	card    *x509.Certificate
	cert    *x509.Certificate // of the EK
	aik     string            // PEM
}

// newAnswering enrols a host and a machine on it.
func (r *rig) newAnswering(hostName, vm string) *answering {
	r.t.Helper()
	m := &answering{r: r, host: r.newHost(hostName), cardKey: r.key(), tpm: controltest.StartSim(r.t)}
	m.ek, m.ak = m.tpm.EK(tpm2.ECCEKTemplate), m.tpm.AK(nil)
	v := ca.Validity{Now: r.now(), Life: 100 * time.Hour}
	spki, err := x509.MarshalPKIXPublicKey(m.cardKey.Public())
	r.fatal(err)
	serial := abi.SerialOf(spki)
	issuer := &ca.Issuer{Certificate: m.host.aik, Signer: m.host.tpm.Signer(m.host.ak)}
	m.card = r.issue(issuer, m.cardKey.Public())(ca.CoprocessorAIK(hex.EncodeToString(serial[:]), v))
	m.cert = r.issue(&ca.Issuer{Certificate: m.card, Signer: m.cardKey}, m.ek.Crypto)(ca.VTPMEK(vm, model, m.ek.Crypto, v))
	req := &enrol.Request{Kind: store.KindVTPM, Name: vm, AKPublic: m.ak.TPMT(), EKCertificate: m.cert.Raw, EKChain: [][]byte{m.card.Raw, m.host.aik.Raw}}
	m.aik = r.client("", m.host.tls).enrol(req, m.tpm, m.ek, m.ak).Certificate
	return m
}

// evidence is the whole answer to a nonce, in mode evidence.
func (m *answering) evidence(nonce []byte) *attest.Evidence {
	m.r.t.Helper()
	authority := string(ca.PEM(m.r.cfg.Authority.Attestation.Certificate))
	ev := &attest.Evidence{Version: attest.Version, PCRMap: attest.ModeEvidence}
	ev.VM = attest.Machine{Chain: m.aik + authority, Layer: m.r.layer(m.tpm, m.ak, nonce)}
	fresh, data := attest.HostNonce(nonce, ev.VM.Quote.Attest), attest.CardData(m.card.RawSubjectPublicKeyInfo)
	ev.Binding = attest.Binding{
		Chain:    string(ca.PEM(m.cert, m.card, m.host.aik)) + authority,
		EKPublic: m.ek.TPMT(), Statement: m.statement(), CardQuote: m.r.layer(m.host.tpm, m.host.ak, data[:]).Quote,
	}
	host := m.r.layer(m.host.tpm, m.host.ak, fresh[:])
	ev.Host = &host
	return ev
}

// statement is the card's word on the machine's endorsement key.
func (m *answering) statement() []byte {
	body := abi.AppendEKBody(nil, &abi.EKBody{Generation: 1, EKs: []abi.EK{{Handle: 0x8101000a, Name: m.ek.Name.Buffer}}})
	st := abi.AppendStatement(nil, &abi.Statement{
		Type: abi.StatementEK, Time: m.r.now().Unix(), Serial: abi.SerialOf(m.card.RawSubjectPublicKeyInfo), Slot: [16]byte{7}, Body: body,
	})
	digest := sha256.Sum256(st)
	sig, err := ecdsa.SignASN1(rand.Reader, m.cardKey, digest[:])
	m.r.fatal(err)
	return abi.AppendSignature(st, sig)
}

// layer quotes PCR 0-7 of a TPM, where nothing was measured.
func (r *rig) layer(tpm *controltest.TPM, ak *controltest.Key, extra []byte) attest.Layer {
	r.t.Helper()
	quoted, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: ak.Handle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: extra}, InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
			{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(0, 1, 2, 3, 4, 5, 6, 7)}}},
	}.Execute(tpm)
	r.fatal(err)
	l := attest.Layer{PCRs: attest.PCRs{}, Quote: attest.Quote{Attest: quoted.Quoted.Bytes(), Signature: tpm2.Marshal(quoted.Signature)}}
	for n := range 8 {
		l.PCRs.Set("sha256", n, make([]byte, 32))
	}
	return l
}

// auditLines are the lines of an event in the audit log.
func (r *rig) auditLines(event string) []string {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, "audit"))
	r.fatal(err)
	var lines []string
	for line := range bytes.Lines(text) {
		if strings.Contains(string(line), `"event":"`+event+`"`) {
			lines = append(lines, string(line))
		}
	}
	return lines
}
