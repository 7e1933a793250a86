// SPDX-License-Identifier: Apache-2.0

package doorhttp

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"hwvtpm/internal/places"
	"hwvtpm/internal/shares"
	"hwvtpm/vtpm/door"
)

// Path is where operations are, with the operation behind it.
const Path = "/v1/door/"

var statuses = map[string]int{
	door.CodeBadRequest:  http.StatusBadRequest,
	door.CodeDenied:      http.StatusForbidden,
	door.CodeNotFound:    http.StatusNotFound,
	door.CodeBusy:        http.StatusTooManyRequests,
	door.CodeUnavailable: http.StatusServiceUnavailable,
	door.CodeInternal:    http.StatusInternalServerError,
}

// problem is what a failed request is answered with.
type problem struct {
	Code  string `json:"code"`
	Error string `json:"error"`
}

// So many requests are under way at a time, of all addresses and of each: HTTP/2 lets one
// connection have hundreds, each with a body in memory. An address has so many in a row,
// and then one in each period.
const (
	mostRequests = 128
	mostOfOne    = 16
	requestBurst = 128
	requestEvery = 50 * time.Millisecond
)

// Handler answers requests by h. Who asks is what caller finds out, whose errors are
// answered as h's are; nil stands for nobody in particular. Requests beyond a number,
// in all and of one address, are answered with door.CodeBusy. Limits on time are for the
// server around it, and those on connections for Bound.
func Handler(h door.Handler, caller func(*http.Request) (door.Caller, error)) http.Handler {
	if caller == nil {
		caller = func(*http.Request) (door.Caller, error) { return door.Caller{UID: -1}, nil }
	}
	mux := http.NewServeMux()
	under, rate := places.New(mostRequests, mostOfOne), shares.New(requestBurst, requestEvery)
	mux.HandleFunc("POST "+Path+"{op}", func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusOK
		var text []byte
		leave, err := enter(under, rate, r)
		if err == nil {
			defer leave()
			text, err = do(w, r, h, caller)
		}
		if err != nil {
			p := problem{door.Code(err), door.Message(err)}
			status = statuses[p.Code]
			text, _ = json.Marshal(p) // two strings
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		w.Write(text) // the caller may have gone; nothing to do about it
	})
	return mux
}

// enter takes a place for a request.
func enter(under *places.Places, rate *shares.Shares, r *http.Request) (leave func(), err error) {
	who := network(r.RemoteAddr)
	if !rate.Take(who, time.Now()) {
		return nil, door.Errorf(door.CodeBusy, "too many requests: slower, please")
	}
	leave, ok := under.Enter(who)
	if !ok {
		return nil, door.Errorf(door.CodeBusy, "too many requests are under way")
	}
	return leave, nil
}

func do(w http.ResponseWriter, r *http.Request, h door.Handler, caller func(*http.Request) (door.Caller, error)) ([]byte, error) {
	who, err := caller(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, door.MaxRequest))
	if err != nil {
		return nil, door.Errorf(door.CodeBadRequest, "the request can't be read: %w", err)
	}
	if len(body) > 0 && !json.Valid(body) {
		return nil, door.Errorf(door.CodeBadRequest, "the request is no JSON")
	}
	result, err := h.Do(r.Context(), who, r.PathValue("op"), body)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(result)
	if err == nil && len(text) > door.MaxAnswer {
		err = errors.New("doorhttp: the answer is too large")
	}
	return text, err
}
