// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"

	"hwvtpm/control/ca"
	"hwvtpm/control/enrol"
	"hwvtpm/control/operator"
	"hwvtpm/control/revoke"
	"hwvtpm/control/store"
	"hwvtpm/coproc/metrics"
)

// Config is what a Server works with. All of it is needed but Logger.
type Config struct {
	Authority *ca.Authority
	Store     store.Store
	Enrol     *enrol.Service
	Operator  *operator.Operator
	Lists     *revoke.Publisher
	Now       func() time.Time
	Logger    hclog.Logger

	// Burst and Rate are how many requests an identity (a host by its TLS key, or
	// an address) may make in a row, and then in a second.
	Burst, Rate float64
	Verify      Verify
}

// Server answers requests. Its methods may be called from any goroutine.
type Server struct {
	cfg      Config
	log      hclog.Logger
	roots    *x509.CertPool
	limits   *limiter
	office   *office
	metrics  counters
	verdicts verdicts
}

// New makes a Server.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, log: cfg.Logger, roots: cfg.Authority.Roots(), limits: newLimiter(cfg.Burst, cfg.Rate), office: newOffice(cfg.Verify)}
	if s.log == nil {
		s.log = hclog.NewNullLogger()
	}
	return s
}

// handler is a handler whose error is answered for it.
type handler func(w http.ResponseWriter, r *http.Request) error

// wrap counts, and answers errors: those inside of the server without their text.
func (s *Server) wrap(route string, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil {
			s.metrics.count(route, http.StatusOK)
			return
		}
		status, text := statusOf(err), err.Error()
		if status == http.StatusInternalServerError {
			s.log.Error("request failed", "route", route, "error", err)
			text = "the server failed; its log says why"
		}
		s.metrics.count(route, status)
		writeJSON(w, status, problem{text})
	})
}

// Public is the handler of the HTTPS door.
func (s *Server) Public() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /v1/enrol", s.wrap("enrol", s.begin))
	mux.Handle("POST /v1/enrol/{id}", s.wrap("prove", s.finish))
	mux.Handle("POST /v1/verify", s.wrap("verify", s.verify))
	mux.Handle("GET /v1/ca", s.wrap("ca", s.authority))
	mux.Handle("GET /v1/crl/{issuer}", s.wrap("crl", s.crl))
	mux.Handle("GET /healthz", s.wrap("healthz", s.health))
	mux.Handle("GET /metrics", s.wrap("metrics", s.showMetrics))
	return mux
}

// admit finds out who asks, and holds back who asks too often.
func (s *Server) admit(r *http.Request, limits *limiter) (enrol.Caller, error) {
	who, err := s.caller(r)
	if !limits.allow(who.Identity(), s.cfg.Now()) {
		return who, statusError{http.StatusTooManyRequests, errors.New("too many requests: slower, please")}
	}
	return who, err
}

func (s *Server) begin(w http.ResponseWriter, r *http.Request) error {
	who, err := s.admit(r, s.limits)
	if err != nil {
		return err
	}
	var req enrol.Request
	if err := readJSON(w, r, &req); err != nil {
		return err
	}
	c, err := s.cfg.Enrol.Begin(r.Context(), &req, who)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, c)
	return nil
}

// Proof is the secret of a challenge.
type Proof struct {
	Secret []byte `json:"secret"`
}

// Certified is what an enrolment gives, as PEM.
type Certified struct {
	Certificate string `json:"certificate"`
	TLS         string `json:"tls,omitempty"`
	Chain       string `json:"chain"` // issuers of both, and the root
}

func (s *Server) finish(w http.ResponseWriter, r *http.Request) error {
	who, err := s.admit(r, s.limits)
	if err != nil {
		return err
	}
	var proof Proof
	if err := readJSON(w, r, &proof); err != nil {
		return err
	}
	got, err := s.cfg.Enrol.Finish(r.Context(), r.PathValue("id"), proof.Secret, who)
	if err != nil {
		return err
	}
	answer := Certified{Certificate: string(ca.PEM(got.Certificate)), Chain: string(ca.PEM(got.Chain...))}
	if got.TLS != nil {
		answer.TLS = string(ca.PEM(got.TLS))
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

func (s *Server) authority(w http.ResponseWriter, _ *http.Request) error {
	a := s.cfg.Authority
	w.Header().Set("Content-Type", "application/x-pem-file")
	w.Write(ca.PEM([]*x509.Certificate{a.Root.Certificate, a.Attestation.Certificate, a.Service.Certificate}...))
	return nil
}

func (s *Server) crl(w http.ResponseWriter, r *http.Request) error {
	switch r.PathValue("issuer") {
	case ca.NameRoot, ca.NameAttestation, ca.NameService:
	default:
		return statusError{http.StatusNotFound, errors.New("no such issuer: root, attestation or service")}
	}
	der, err := s.cfg.Lists.Current(r.Context(), r.PathValue("issuer"), s.cfg.Now())
	if err != nil {
		return err
	}
	if r.URL.Query().Has("pem") {
		w.Header().Set("Content-Type", "application/x-pem-file")
		return pem.Encode(w, &pem.Block{Type: "X509 CRL", Bytes: der})
	}
	w.Header().Set("Content-Type", "application/pkix-crl")
	w.Write(der)
	return nil
}

// health is fine if the store answers.
func (s *Server) health(w http.ResponseWriter, r *http.Request) error {
	err := s.cfg.Store.View(r.Context(), func(store.Tx) error { return nil })
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, "ok\n")
	return err
}

func (s *Server) showMetrics(w http.ResponseWriter, _ *http.Request) error {
	var m metrics.Writer
	s.metrics.write(&m)
	s.verdicts.write(&m)
	w.Header().Set("Content-Type", metrics.ContentType)
	_, err := w.Write(m.Bytes())
	return err
}
