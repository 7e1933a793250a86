// SPDX-License-Identifier: Apache-2.0

package sandbox

/*
#cgo LDFLAGS: -lseccomp -lcrypto
#cgo CFLAGS: -O2 -Wall -Wextra
#include "sandbox.h"
*/
import "C"

func report() Status {
	return Status{
		Landlock: int(C.sandbox_done.landlock),
		Seccomp:  C.sandbox_done.seccomp != 0,
		Locked:   C.sandbox_done.locked != 0,
	}
}
