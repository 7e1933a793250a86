// SPDX-License-Identifier: Apache-2.0

package card

const victimDir = "HWVTPM_TEST_VICTIM"

func victim(string) {}
