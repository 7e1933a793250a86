/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a TPM driver needs from the kernel's TPM core.
 *
 * The core exports these functions to modules, but declares them in a header
 * below drivers/char/tpm that is not installed with the kernel headers. With
 * CONFIG_MODVERSIONS a kernel whose functions differ refuses to load the module.
 */
#ifndef _TPM_VIRTIO_TPM_CORE_H
#define _TPM_VIRTIO_TPM_CORE_H

#include <linux/tpm.h>
#include <linux/version.h>

struct tpm_chip *tpmm_chip_alloc(struct device *pdev,
				 const struct tpm_class_ops *ops);
int tpm_chip_register(struct tpm_chip *chip);
void tpm_chip_unregister(struct tpm_chip *chip);
unsigned long tpm_calc_ordinal_duration(struct tpm_chip *chip, u32 ordinal);
int tpm_pm_suspend(struct device *dev);
int tpm_pm_resume(struct device *dev);

/* Linux 6.17 passes the size of the caller's buffer to send() as well. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
#define TPM_SEND_ARGS	u8 *buf, size_t bufsiz, size_t len
#else
#define TPM_SEND_ARGS	u8 *buf, size_t len
#endif

#endif /* _TPM_VIRTIO_TPM_CORE_H */
