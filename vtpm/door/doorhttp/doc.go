// SPDX-License-Identifier: Apache-2.0

// Package doorhttp is the host's door over HTTPS, for guests without a channel of
// their own.
//
//	POST /v1/door/OP   body -> 200 result
//
// Bodies and results are those of package door. An error is {"code","error"}: 400 for
// door.CodeBadRequest, 403 CodeDenied, 404 CodeNotFound, 429 CodeBusy,
// 503 CodeUnavailable, 500 CodeInternal.
//
// HTTPS proves to the guest which host it talks to. It proves nothing about the guest:
// what it may do hangs on what its requests prove.
package doorhttp
