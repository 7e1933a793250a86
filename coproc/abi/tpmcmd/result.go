// SPDX-License-Identifier: Apache-2.0

package tpmcmd

import "encoding/binary"

// Result is what kind of answer a response is, by the bits of its response
// code (TCG TPM 2.0 Part 2, 6.6.2, "Response Code Formats"):
//
//	 31            12 11 10  9  8  7  6             0
//	+----------------+--+--+--+--+--+----------------+
//	| 0              |S |T |0 |1 |0 | number         |  format 0
//	+----------------+--+--+--+--+--+--+-------------+
//	| 0              | N           |1 |P | number    |  format 1
//	+----------------+-------------+--+--+-----------+
//
// S is set in warnings, T in codes of the vendor's own; N and P tell which
// handle, session or parameter is meant.
type Result uint8

// Results.
const (
	ResultSuccess Result = iota // TPM_RC_SUCCESS
	ResultFormat1               // something is wrong with a handle, session or parameter
	ResultError                 // RC_VER1: any other error
	ResultWarning               // RC_WARN: not now, or try again
	ResultFailure               // TPM_RC_FAILURE: the TPM is broken until it is restarted
	ResultOther                 // no response of a TPM 2.0, or a vendor's code
)

// Results is how many there are: those below it are all valid.
const Results = 6

var resultNames = [Results]string{
	ResultSuccess: "success",
	ResultFormat1: "format1",
	ResultError:   "error",
	ResultWarning: "warning",
	ResultFailure: "failure",
	ResultOther:   "other",
}

// String is a lower-case word, fit for a label of a metric.
func (r Result) String() string {
	if int(r) < len(resultNames) {
		return resultNames[r]
	}
	return resultNames[ResultOther]
}

// ResultOf returns the kind of a response.
func ResultOf(resp []byte) Result {
	if len(resp) < headerSize {
		return ResultOther
	}
	return ResultOfCode(binary.BigEndian.Uint32(resp[6:]))
}

// ResultOfCode returns the kind of the response with the given code.
func ResultOfCode(rc uint32) Result {
	const (
		rcFailure   = 0x101 // TPM_RC_FAILURE
		format1     = 1 << 7
		version2    = 1 << 8
		vendor      = 1 << 10
		warning     = 1 << 11
		highestCode = 0xfff
	)
	switch {
	case rc == 0:
		return ResultSuccess
	case rc > highestCode:
		return ResultOther
	case rc&format1 != 0:
		return ResultFormat1
	case rc&version2 == 0 || rc&vendor != 0:
		return ResultOther
	case rc&warning != 0:
		return ResultWarning
	case rc == rcFailure:
		return ResultFailure
	}
	return ResultError
}
