// SPDX-License-Identifier: Apache-2.0

// Package api is the control server's doors.
//
// The public one is HTTPS with JSON. Guests bear a token (Authorization: Bearer),
// hosts have a TLS key that was certified at their enrolment or is pinned.
//
//	POST /v1/enrol            enrol.Request            -> 201 enrol.Challenge
//	POST /v1/enrol/{id}       {"secret"}               -> 200 {"certificate","tls","chain"}
//	POST /v1/verify           attest.Question          -> 200 attest.Result
//	GET  /v1/ca                                        -> 200 PEM: root, attestation, service
//	GET  /v1/crl/{issuer}                              -> 200 DER
//	GET  /healthz, /metrics
//
// The operator's is a UNIX socket, which only its owner can reach, or the same
// handler within a process that has the store to itself.
//
//	POST /v1/token, /v1/allow, /v1/deny, /v1/pin, /v1/revoke;  GET /v1/records, /v1/crl/{issuer}
//
// An error is {"error": text} with 400 (the request can't be granted to anybody),
// 401 (a TLS key that was revoked), 403 (not to this caller, or no proof), 404,
// 413, 429 (slower), 503 (too many under way), 500 (nothing more is said).
package api
