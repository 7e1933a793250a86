/* SPDX-License-Identifier: Apache-2.0 */

#ifndef HWVTPM_ENGINE_CURVES_H
#define HWVTPM_ENGINE_CURVES_H

/* hwvtpm_fast_curves switches OpenSSL's own code for the NIST curves on or off.
 * Not while a command runs. */
void hwvtpm_fast_curves(int on);

/* hwvtpm_curve_state: 0 never used, 1 checked and in use, 2 the check failed and
 * generic code is used; -1 not a curve of ours. nid is OpenSSL's. */
int hwvtpm_curve_state(int nid);

#endif
