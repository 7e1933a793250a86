// SPDX-License-Identifier: Apache-2.0

// Package client asks a control server through its HTTPS door: it enrols hosts
// and vTPMs, and fetches certificates, revocation lists and verdicts.
//
// A Client believes a server that has a certificate by the configured roots, by
// TLS 1.3 and for the name in the URL, and follows no redirects: a token goes there
// and nowhere else. Answers are bounded, and parsed before they are returned. Every
// call ends with its context, and after Timeout at the latest.
package client
