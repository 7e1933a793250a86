// SPDX-License-Identifier: Apache-2.0

package card

import (
	"encoding/hex"
	"strings"
	"testing"

	"hwvtpm/coproc/abi"
)

// A slot is not bound to a key that anybody can sign for: the eight points of
// small order.
func TestWeakKeysAreRefused(t *testing.T) {
	r := openCard(t, fakeConfig(t))
	zeros := strings.Repeat("00", 31)
	for _, key := range []string{
		zeros + "00", zeros + "80", "01" + zeros,
		"ec" + strings.Repeat("ff", 30) + "7f",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	} {
		b, err := hex.DecodeString(key)
		must(t, err)
		req := request("a")
		req.AccessKey = [32]byte(b)
		_, _, err = do(r.admin, abi.OpSlotCreate, 0, abi.AppendSlotCreate(nil, req))
		wantStatus(t, err, abi.StatusBadField)
	}
	r.create("a")
}
