/* SPDX-License-Identifier: Apache-2.0 */

#ifndef HWVTPM_ENGINE_SHIM_H
#define HWVTPM_ENGINE_SHIM_H

#include <stdint.h>
#include <stddef.h>

/* One process holds one TPM; all functions but hwvtpm_cancel are called by
 * one thread at a time. Results are TPM_RESULT, 0 is success. */

/* hwvtpm_setup chooses TPM 2.0 and registers the callbacks. Once. */
uint32_t hwvtpm_setup(void);

/* hwvtpm_manufacture starts a new TPM. Fails if one is running. */
uint32_t hwvtpm_manufacture(void);

/* hwvtpm_load starts the TPM from saved state. vol may be NULL: power cycle. */
uint32_t hwvtpm_load(const uint8_t *perm, uint32_t perm_len,
                     const uint8_t *vol, uint32_t vol_len);

/* hwvtpm_stop ends the TPM; what was not taken by hwvtpm_stored is wiped. */
void hwvtpm_stop(void);

struct hwvtpm_result {
    uint32_t rc;     /* TPM_RESULT of the library, not of the command */
    uint32_t len;    /* length of the response */
    uint32_t stored; /* length of the stored permanent state, 0: no store */
};

/* hwvtpm_process runs one command and copies the response to resp. */
void hwvtpm_process(struct hwvtpm_result *res, uint8_t locality,
                    uint8_t *cmd, uint32_t cmd_len, uint8_t *resp, uint32_t resp_cap);

/* hwvtpm_hash gives the TPM _TPM_Hash_Start, data and _TPM_Hash_End. */
uint32_t hwvtpm_hash(const uint8_t *data, uint32_t len);

/* hwvtpm_stored_len and hwvtpm_take_stored move the permanent state that the
 * last call stored to dst, which has room for all of it. */
uint32_t hwvtpm_stored_len(void);
void hwvtpm_take_stored(uint8_t *dst);

/* hwvtpm_volatile copies the volatile state to dst. If cap is too small it
 * copies nothing; *len tells the size in both cases. */
uint32_t hwvtpm_volatile(uint8_t *dst, uint32_t cap, uint32_t *len);

/* hwvtpm_cancel may be called by any thread. */
void hwvtpm_cancel(void);

#endif
