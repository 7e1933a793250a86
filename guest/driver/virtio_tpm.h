/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Wire format of the virtio TPM device, as seen by the driver.
 *
 * Queue 0 is the command queue and the only one. One chain is one TPM command:
 *
 *   plain layout                      framed layout (VIRTIO_TPM_F_FRAMED)
 *   readable: TPM command             readable: u8 locality, TPM command
 *   writable: TPM response            writable: TPM response, gap, u8 status
 *
 * Both are byte streams: descriptor boundaries carry no meaning. The status is
 * the very last writable byte. The device wants room for buffer_size bytes of
 * response (plus the status byte) in every chain, whatever the command is.
 * "used.len" is the response's length in the plain layout (0: the device
 * refused the chain) and the whole writable length in the framed one.
 */
#ifndef _VIRTIO_TPM_H
#define _VIRTIO_TPM_H

#include <linux/types.h>

/* The device has no number from OASIS yet: this is the default of both ends. */
#define VIRTIO_ID_TPM_DEFAULT		38

/* Feature bits */
#define VIRTIO_TPM_F_FRAMED		0	/* locality and status bytes */
#define VIRTIO_TPM_F_BUFSIZE		1	/* configuration fields are valid */
#define VIRTIO_TPM_F_CANCEL		2	/* config.cancel may be written */

/* Values of the status byte */
#define VIRTIO_TPM_S_OK			0
#define VIRTIO_TPM_S_BAD_INPUT		1

/* Bytes a command or a response can have if the device does not say */
#define VIRTIO_TPM_DEFAULT_BUFFER_SIZE	4096

/*
 *    0             2       3       4                  8
 *   +-------------+-------+-------+------------------+
 *   | buffer_size | tpm   | max   | cancel           |  little endian
 *   |             | ver.  | local.| (writes only)    |
 *   +-------------+-------+-------+------------------+
 */
struct virtio_tpm_config {
	__le16 buffer_size;
	__u8 tpm_version;	/* 2 */
	__u8 max_locality;
	__le32 cancel;		/* nonzero: end the running command early */
};

#endif /* _VIRTIO_TPM_H */
