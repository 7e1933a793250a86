// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"

	"hwvtpm/control/operator"
	"hwvtpm/control/store"
)

// Operator is the handler of the operator's door.
func (s *Server) Operator() http.Handler {
	o, mux := s.cfg.Operator, http.NewServeMux()
	mux.Handle("POST /v1/token", s.wrap("token", answer(o.NewToken)))
	mux.Handle("POST /v1/revoke", s.wrap("revoke", answer(func(ctx context.Context, r operator.RevokeRequest) (Revoked, error) {
		serials, err := o.Revoke(ctx, r)
		return Revoked{serials}, err
	})))
	mux.Handle("POST /v1/allow", s.wrap("allow", answer(func(ctx context.Context, a store.Allow) (struct{}, error) { return struct{}{}, o.Allow(ctx, a) })))
	mux.Handle("POST /v1/deny", s.wrap("deny", answer(func(ctx context.Context, d store.Deny) (struct{}, error) { return struct{}{}, o.Deny(ctx, d) })))
	mux.Handle("POST /v1/pin", s.wrap("pin", answer(func(ctx context.Context, p store.Pin) (struct{}, error) { return struct{}{}, o.Pin(ctx, p) })))
	mux.Handle("GET /v1/crl/{issuer}", s.wrap("crl", s.crl))
	mux.Handle("GET /v1/records", s.wrap("records", func(w http.ResponseWriter, r *http.Request) error {
		records, err := o.List(r.Context())
		if err == nil {
			writeJSON(w, http.StatusOK, records)
		}
		return err
	}))
	return mux
}

// Revoked are the serials of certificates that were taken back.
type Revoked struct {
	Serials []string `json:"serials"`
}

// answer makes a handler of what takes one value and gives another.
func answer[In, Out any](f func(context.Context, In) (Out, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		var in In
		if err := readJSON(w, r, &in); err != nil {
			return err
		}
		out, err := f(r.Context(), in)
		if err == nil {
			writeJSON(w, http.StatusOK, out)
		}
		return err
	}
}
