// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"hwvtpm/control/ca"
	"hwvtpm/control/enrol"
	"hwvtpm/control/operator"
	"hwvtpm/control/store"
)

// maxBody is more than any request needs: an EK certificate with eight others.
const maxBody = 128 << 10

// statusError is an error with its HTTP status.
type statusError struct {
	status int
	error
}

func statusOf(err error) int {
	if s, ok := errors.AsType[statusError](err); ok {
		return s.status
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return http.StatusRequestEntityTooLarge
	}
	for _, c := range []struct {
		cause  error
		status int
	}{
		{enrol.ErrRequest, http.StatusBadRequest}, {operator.ErrInvalid, http.StatusBadRequest},
		{enrol.ErrDenied, http.StatusForbidden}, {enrol.ErrProof, http.StatusForbidden},
		{enrol.ErrBusy, http.StatusServiceUnavailable}, {ca.ErrNoRootKey, http.StatusServiceUnavailable},
		{store.ErrNotFound, http.StatusNotFound},
	} {
		if errors.Is(err, c.cause) {
			return c.status
		}
	}
	return http.StatusInternalServerError
}

// readJSON reads a body that is one value of a known shape, no more.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.Join(errors.New("something follows the value"), err)
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return err
	}
	return statusError{http.StatusBadRequest, fmt.Errorf("body: %w", err)}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // the caller may have gone; nothing to do about it
}

// problem is what a failed request is answered with.
type problem struct {
	Error string `json:"error"`
}
