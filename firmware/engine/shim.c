/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The callbacks that libtpms wants, and the calls into it that need more than
 * one step. The callbacks stay in C: libtpms asks for the locality in every
 * command, and a call from C into Go and back would cost more than the command.
 */

#include "shim.h"

#include <stdlib.h>
#include <string.h>

#include <libtpms/tpm_error.h>
#include <libtpms/tpm_library.h>
#include <libtpms/tpm_memory.h>
#include <libtpms/tpm_nvfilename.h>
#include <libtpms/tpm_tis.h>

struct blob {
    uint8_t *data;
    uint32_t len;
};

static struct blob stored;   /* permanent state that a store callback left */
static struct blob loading;  /* permanent state that MainInit may ask for */
static int creating;         /* MainInit may make a new TPM */
static uint8_t cur_locality; /* of the running command */

static unsigned char *resp_buf; /* owned by libtpms, reused by each command */
static uint32_t resp_buf_size;

static void blob_wipe(struct blob *b)
{
    if (b->data) {
        explicit_bzero(b->data, b->len);
        free(b->data);
    }
    b->data = NULL;
    b->len = 0;
}

static TPM_RESULT blob_set(struct blob *b, const uint8_t *data, uint32_t len)
{
    uint8_t *p = malloc(len ? len : 1);

    if (!p)
        return TPM_SIZE;
    memcpy(p, data, len);
    blob_wipe(b);
    b->data = p;
    b->len = len;
    return TPM_SUCCESS;
}

static TPM_RESULT cb_nvram_init(void)
{
    return TPM_SUCCESS;
}

/*
 * TPM_RETRY means "there is no such state", upon which libtpms makes a new
 * TPM. So for the permanent state it is said during creation only; at any
 * other time the answer is the state being loaded, or an error.
 */
static TPM_RESULT cb_nvram_load(unsigned char **data, uint32_t *length,
                                uint32_t tpm_number, const char *name)
{
    TPM_RESULT rc;

    (void)tpm_number;
    if (strcmp(name, TPM_PERMANENT_ALL_NAME) != 0)
        return TPM_RETRY;
    if (creating && !stored.data)
        return TPM_RETRY;
    const struct blob *src = creating ? &stored : &loading;
    if (!src->data)
        return TPM_FAIL;
    rc = TPM_Malloc(data, src->len);
    if (rc != TPM_SUCCESS)
        return rc;
    memcpy(*data, src->data, src->len);
    *length = src->len;
    return TPM_SUCCESS;
}

static TPM_RESULT cb_nvram_store(const unsigned char *data, uint32_t length,
                                 uint32_t tpm_number, const char *name)
{
    (void)tpm_number;
    if (strcmp(name, TPM_PERMANENT_ALL_NAME) != 0)
        return TPM_SUCCESS;
    return blob_set(&stored, data, length);
}

static TPM_RESULT cb_nvram_delete(uint32_t tpm_number, const char *name, TPM_BOOL must_exist)
{
    (void)tpm_number;
    (void)name;
    (void)must_exist;
    return TPM_SUCCESS;
}

static TPM_RESULT cb_io_init(void)
{
    return TPM_SUCCESS;
}

static TPM_RESULT cb_io_locality(TPM_MODIFIER_INDICATOR *loc, uint32_t tpm_number)
{
    (void)tpm_number;
    *loc = cur_locality;
    return TPM_SUCCESS;
}

static TPM_RESULT cb_io_presence(TPM_BOOL *pp, uint32_t tpm_number)
{
    (void)tpm_number;
    *pp = FALSE;
    return TPM_SUCCESS;
}

uint32_t hwvtpm_setup(void)
{
    static struct libtpms_callbacks cbs = {
        .sizeOfStruct = sizeof(cbs),
        .tpm_nvram_init = cb_nvram_init,
        .tpm_nvram_loaddata = cb_nvram_load,
        .tpm_nvram_storedata = cb_nvram_store,
        .tpm_nvram_deletename = cb_nvram_delete,
        .tpm_io_init = cb_io_init,
        .tpm_io_getlocality = cb_io_locality,
        .tpm_io_getphysicalpresence = cb_io_presence,
    };
    TPM_RESULT rc = TPMLIB_ChooseTPMVersion(TPMLIB_TPM_VERSION_2);

    return rc != TPM_SUCCESS ? rc : TPMLIB_RegisterCallbacks(&cbs);
}

uint32_t hwvtpm_manufacture(void)
{
    TPM_RESULT rc;

    creating = 1;
    rc = TPMLIB_MainInit();
    creating = 0;
    return rc;
}

uint32_t hwvtpm_load(const uint8_t *perm, uint32_t perm_len,
                     const uint8_t *vol, uint32_t vol_len)
{
    TPM_RESULT rc = blob_set(&loading, perm, perm_len);

    if (rc == TPM_SUCCESS)
        rc = TPMLIB_SetState(TPMLIB_STATE_PERMANENT, perm, perm_len);
    if (rc == TPM_SUCCESS && vol)
        rc = TPMLIB_SetState(TPMLIB_STATE_VOLATILE, vol, vol_len);
    if (rc == TPM_SUCCESS)
        rc = TPMLIB_MainInit();
    blob_wipe(&loading);
    return rc;
}

void hwvtpm_stop(void)
{
    TPMLIB_Terminate();
    blob_wipe(&stored);
}

void hwvtpm_process(struct hwvtpm_result *res, uint8_t locality,
                    uint8_t *cmd, uint32_t cmd_len, uint8_t *resp, uint32_t resp_cap)
{
    uint32_t len = 0;

    cur_locality = locality;
    res->rc = TPMLIB_Process(&resp_buf, &len, &resp_buf_size, cmd, cmd_len);
    cur_locality = 0;
    res->len = len;
    if (resp_buf && len <= resp_buf_size) {
        if (len <= resp_cap)
            memcpy(resp, resp_buf, len);
        explicit_bzero(resp_buf, len);
    }
    res->stored = stored.len;
}

uint32_t hwvtpm_hash(const uint8_t *data, uint32_t len)
{
    TPM_RESULT rc;

    cur_locality = 4;
    rc = TPM_IO_Hash_Start();
    if (rc == TPM_SUCCESS && len > 0)
        rc = TPM_IO_Hash_Data(data, len);
    if (rc == TPM_SUCCESS)
        rc = TPM_IO_Hash_End();
    cur_locality = 0;
    return rc;
}

uint32_t hwvtpm_stored_len(void)
{
    return stored.len;
}

void hwvtpm_take_stored(uint8_t *dst)
{
    memcpy(dst, stored.data, stored.len);
    blob_wipe(&stored);
}

uint32_t hwvtpm_volatile(uint8_t *dst, uint32_t cap, uint32_t *len)
{
    unsigned char *buf = NULL;
    TPM_RESULT rc;

    *len = 0;
    rc = TPMLIB_GetState(TPMLIB_STATE_VOLATILE, &buf, len);
    if (buf) {
        if (rc == TPM_SUCCESS && *len <= cap)
            memcpy(dst, buf, *len);
        explicit_bzero(buf, *len);
        TPM_Free(buf);
    }
    return rc;
}

void hwvtpm_cancel(void)
{
    TPMLIB_CancelCommand();
}
