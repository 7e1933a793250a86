// SPDX-License-Identifier: Apache-2.0

package engine

/*
#cgo LDFLAGS: -lcrypto -ldl
#include "curves.h"
*/
import "C"

func cFastCurves(on bool) {
	v := C.int(0)
	if on {
		v = 1
	}
	C.hwvtpm_fast_curves(v)
}

func cCurveState(nid int) int { return int(C.hwvtpm_curve_state(C.int(nid))) }
