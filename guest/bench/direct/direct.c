/* SPDX-License-Identifier: Apache-2.0 */

/*
 * libtpms in a loop: what a TPM command costs when nothing is in its way. Reads
 * lines "COUNT HEX" and answers each with one line of COUNT durations in
 * nanoseconds, then the last response in hex. State lives in memory only.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libtpms/tpm_error.h>
#include <libtpms/tpm_library.h>

static TPM_RESULT no_init(void) { return TPM_SUCCESS; }

static TPM_RESULT no_load(unsigned char **data, uint32_t *length, uint32_t tpm, const char *name)
{
    (void)data, (void)length, (void)tpm, (void)name;
    return TPM_RETRY; /* there is none: make a new TPM */
}

static TPM_RESULT no_store(const unsigned char *data, uint32_t length, uint32_t tpm, const char *name)
{
    (void)data, (void)length, (void)tpm, (void)name;
    return TPM_SUCCESS;
}

static TPM_RESULT no_delete(uint32_t tpm, const char *name, TPM_BOOL must_exist)
{
    (void)tpm, (void)name, (void)must_exist;
    return TPM_SUCCESS;
}

static TPM_RESULT locality(TPM_MODIFIER_INDICATOR *loc, uint32_t tpm)
{
    (void)tpm;
    *loc = 0;
    return TPM_SUCCESS;
}

static TPM_RESULT presence(TPM_BOOL *present, uint32_t tpm)
{
    (void)tpm;
    *present = 0;
    return TPM_SUCCESS;
}

static struct libtpms_callbacks callbacks = {
    .sizeOfStruct = sizeof(struct libtpms_callbacks),
    .tpm_nvram_init = no_init,
    .tpm_nvram_loaddata = no_load,
    .tpm_nvram_storedata = no_store,
    .tpm_nvram_deletename = no_delete,
    .tpm_io_init = no_init,
    .tpm_io_getlocality = locality,
    .tpm_io_getphysicalpresence = presence,
};

static unsigned char *resp;
static uint32_t resp_len, resp_size;

/* process runs one command and returns its time in nanoseconds, -1 if libtpms
 * itself failed. libtpms may overwrite a command, so it gets a copy. */
static long process(const unsigned char *cmd, uint32_t len)
{
    unsigned char copy[4096];
    struct timespec a, b;

    memcpy(copy, cmd, len);
    clock_gettime(CLOCK_MONOTONIC, &a);
    TPM_RESULT rc = TPMLIB_Process(&resp, &resp_len, &resp_size, copy, len);
    clock_gettime(CLOCK_MONOTONIC, &b);
    if (rc != TPM_SUCCESS)
        return -1;
    return (b.tv_sec - a.tv_sec) * 1000000000L + (b.tv_nsec - a.tv_nsec);
}

int main(void)
{
    static char hex[2 * 4096 + 1];
    unsigned char cmd[4096];
    long count;

    if (TPMLIB_ChooseTPMVersion(TPMLIB_TPM_VERSION_2) != TPM_SUCCESS ||
        TPMLIB_RegisterCallbacks(&callbacks) != TPM_SUCCESS || TPMLIB_MainInit() != TPM_SUCCESS) {
        fputs("libtpms does not start\n", stderr);
        return 1;
    }
    while (scanf("%ld %8192s", &count, hex) == 2) {
        uint32_t len = 0;
        unsigned int byte;

        while (len < sizeof(cmd) && sscanf(hex + 2 * len, "%2x", &byte) == 1)
            cmd[len++] = (unsigned char)byte;
        for (long i = 0; i < count; i++)
            printf("%ld ", process(cmd, len));
        putchar('\n');
        for (uint32_t i = 0; i < resp_len; i++)
            printf("%02x", resp[i]);
        putchar('\n');
        fflush(stdout);
    }
    return 0;
}
