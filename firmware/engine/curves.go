// SPDX-License-Identifier: Apache-2.0

package engine

// FastCurves switches OpenSSL's own code for NIST P-256, P-384 and P-521 on or
// off; it starts switched off. libtpms does not use that code by itself, and is
// about ten times slower at P-256 for it. Each curve is checked against
// the generic code at its first use, and stays generic if they disagree.
//
// The engine's owner calls it, not while a command runs.
func (e *Engine) FastCurves(on bool) { cFastCurves(on) }

// CurveState tells how a curve is computed.
type CurveState int

// States of a curve.
const (
	CurveUnused     CurveState = 0 // not needed yet
	CurveFast       CurveState = 1 // checked, and OpenSSL's own code
	CurveDistrusted CurveState = 2 // the check failed: generic code
)

// OpenSSL's numbers of the curves (obj_mac.h).
const (
	nidP256 = 415
	nidP384 = 715
	nidP521 = 716
)

// Curves tells the states of P-256, P-384 and P-521, in this order.
func (e *Engine) Curves() [3]CurveState {
	var s [3]CurveState
	for i, nid := range []int{nidP256, nidP384, nidP521} {
		s[i] = CurveState(cCurveState(nid))
	}
	return s
}
