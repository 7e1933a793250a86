/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _TPM_VIRTIO_H
#define _TPM_VIRTIO_H

#include <linux/spinlock.h>
#include <linux/tpm.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>

/**
 * struct tpm_virtio - one bound device
 * @vdev: the virtio device
 * @vq: command queue; NULL between freeze and restore
 * @chip: the TPM core's view of this device
 * @lock: guards @vq against its callback, and @removing, @abort
 * @done: woken when @in_flight, @abort or the device's health changes
 * @in_flight: the device owns @req and @resp
 * @removing: the driver is being unbound
 * @abort: the command in flight when @removing was set must be given up
 * @needs_reset: the device has set VIRTIO_CONFIG_S_NEEDS_RESET
 * @framed: VIRTIO_TPM_F_FRAMED was negotiated
 * @can_cancel: VIRTIO_TPM_F_CANCEL was negotiated
 * @locality: locality of the next command; sent in the framed layout only
 * @max_locality: highest locality that the device accepts
 * @buffer_size: limit of a command and of a response, in bytes
 * @polling: how long to watch for the command in flight, in us; 0: not at all
 * @ordinal: command code in flight, for its time limit
 * @used: bytes that the device says it wrote
 * @req: locality byte (framed) and command
 * @resp: response and status byte (framed)
 */
struct tpm_virtio {
	struct virtio_device *vdev;
	struct virtqueue *vq;
	struct tpm_chip *chip;

	spinlock_t lock;	/* vq against its callback; removing, abort */
	wait_queue_head_t done;
	bool in_flight;
	bool removing;
	bool abort;
	bool needs_reset;

	bool framed;
	bool can_cancel;
	u8 locality;
	u8 max_locality;
	u16 buffer_size;

	unsigned int polling;
	u32 ordinal;
	unsigned int used;
	u8 *req;
	u8 *resp;
};

static inline struct tpm_virtio *tpm_virtio_of(struct tpm_chip *chip)
{
	return dev_get_drvdata(&chip->dev);
}

/* driver.c */
extern unsigned int tpm_virtio_min_timeout_ms;
extern unsigned int tpm_virtio_poll_us;

/* command.c */
extern const struct tpm_class_ops tpm_virtio_ops;

void tpm_virtio_done(struct virtqueue *vq);
int tpm_virtio_exec(struct tpm_virtio *tv, void *buf, size_t len, size_t count);
void tpm_virtio_abort(struct tpm_virtio *tv);

#endif /* _TPM_VIRTIO_H */
