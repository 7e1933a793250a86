// SPDX-License-Identifier: GPL-2.0
/*
 * TPM commands over the command queue.
 *
 * Who owns what:
 *
 * The core serialises commands by chip->tpm_mutex, so there is at most one
 * chain at a time, and send() and recv() never race with each other. The two
 * buffers belong to the driver while !in_flight and to the device while
 * in_flight. Only send() gives them away; only the virtqueue callback, or a
 * device reset, brings them back. A caller that gives up (timeout, fatal
 * signal, unbind) therefore leaves in_flight set, and later commands fail with
 * -EBUSY until the device has returned the old chain: memory that the device
 * may still write to is neither freed nor used again.
 */
#include <linux/ktime.h>
#include <linux/minmax.h>
#include <linux/sched.h>
#include <linux/string.h>

#include "tpm_core.h"
#include "tpm_virtio.h"
#include "virtio_tpm.h"

/* How long a command that was given up may take to come back. */
#define TPM_VIRTIO_GRACE	(1 * HZ)
/* Limit for the commands that the core sends while the driver is unbound. */
#define TPM_VIRTIO_REMOVE_LIMIT	(5 * HZ)
/* No more than this: other tasks want the processor, too. */
#define TPM_VIRTIO_POLL_MAX_US	1000U
/* status(): the device has returned the command. */
#define TPM_VIRTIO_DONE		BIT(0)

static size_t tpm_virtio_writable(const struct tpm_virtio *tv)
{
	return tv->buffer_size + (tv->framed ? 1 : 0);
}

/*
 * Takes the command back if the device has returned it. Called with the lock. A
 * device may interrupt whenever it likes, also while there is no queue to look at.
 */
static void tpm_virtio_take(struct tpm_virtio *tv)
{
	unsigned int len;

	if (tv->vq && virtqueue_get_buf(tv->vq, &len)) {
		tv->used = len;
		/* Pairs with tpm_virtio_returned(): used and resp first. */
		smp_store_release(&tv->in_flight, false);
	}
}

/**
 * tpm_virtio_done() - virtqueue callback: the device has returned a command
 * @vq: the command queue, which the ring code may just have found broken
 */
void tpm_virtio_done(struct virtqueue *vq)
{
	struct tpm_virtio *tv = vq->vdev->priv;
	unsigned long flags;

	spin_lock_irqsave(&tv->lock, flags);
	tpm_virtio_take(tv);
	spin_unlock_irqrestore(&tv->lock, flags);
	wake_up(&tv->done);
}

static bool tpm_virtio_returned(struct tpm_virtio *tv)
{
	/* Pairs with the release in tpm_virtio_take(). */
	return !smp_load_acquire(&tv->in_flight);
}

/* The device cannot answer: suspended, unplugged, or it broke its queue. */
static bool tpm_virtio_dead(struct tpm_virtio *tv)
{
	return !tv->vq || READ_ONCE(tv->needs_reset) ||
	       virtqueue_is_broken(tv->vq);
}

static void tpm_virtio_cancel(struct tpm_chip *chip)
{
	struct tpm_virtio *tv = tpm_virtio_of(chip);
	u32 now = 1;

	if (tv->can_cancel && !tpm_virtio_dead(tv))
		virtio_cwrite_le(tv->vdev, struct virtio_tpm_config, cancel,
				 &now);
}

static int tpm_virtio_queue(struct tpm_virtio *tv, size_t req_len)
{
	struct scatterlist out, in, *sgs[] = { &out, &in };
	unsigned long flags;
	bool kick = false;
	int rc;

	sg_init_one(&out, tv->req, req_len);
	sg_init_one(&in, tv->resp, tpm_virtio_writable(tv));

	spin_lock_irqsave(&tv->lock, flags);
	rc = virtqueue_add_sgs(tv->vq, sgs, 1, 1, tv, GFP_ATOMIC);
	if (!rc) {
		tv->in_flight = true;
		tv->abort = false;
		tv->polling = min(READ_ONCE(tpm_virtio_poll_us), TPM_VIRTIO_POLL_MAX_US);
		/* Nothing is in the used ring yet, so nothing can be missed. */
		if (tv->polling)
			virtqueue_disable_cb(tv->vq);
		else
			virtqueue_enable_cb(tv->vq);
		kick = virtqueue_kick_prepare(tv->vq);
	}
	spin_unlock_irqrestore(&tv->lock, flags);

	/* The kick may leave to the hypervisor: not under a spinlock. */
	if (kick && !virtqueue_notify(tv->vq))
		return -EIO;
	return rc;
}

static int tpm_virtio_submit(struct tpm_virtio *tv, const u8 *buf, size_t len)
{
	const struct tpm_header *header = (const struct tpm_header *)buf;
	size_t req_len = 0;

	if (len < TPM_HEADER_SIZE || len > tv->buffer_size)
		return -E2BIG;
	if (tpm_virtio_dead(tv))
		return -EIO;
	if (!tpm_virtio_returned(tv))
		return -EBUSY;

	if (tv->framed)
		tv->req[req_len++] = tv->locality;
	memcpy(tv->req + req_len, buf, len);
	req_len += len;
	tv->ordinal = be32_to_cpu(header->ordinal);

	return tpm_virtio_queue(tv, req_len);
}

static int tpm_virtio_send(struct tpm_chip *chip, TPM_SEND_ARGS)
{
	return tpm_virtio_submit(tpm_virtio_of(chip), buf, len);
}

/*
 * The core's durations describe what a chip may need. A virtual TPM also waits
 * for a processor of the host and for its turn at the coprocessor, so they are
 * only honoured where they are longer than the floor.
 */
static unsigned long tpm_virtio_limit(struct tpm_virtio *tv)
{
	if (READ_ONCE(tv->removing))
		return TPM_VIRTIO_REMOVE_LIMIT;
	return max(tpm_calc_ordinal_duration(tv->chip, tv->ordinal),
		   msecs_to_jiffies(READ_ONCE(tpm_virtio_min_timeout_ms)));
}

/*
 * Most commands are back before this caller could have gone to sleep and been
 * woken by an interrupt, which also costs the host more than the command. So
 * the used ring is watched for a moment first, with the callback off.
 */
static void tpm_virtio_poll(struct tpm_virtio *tv)
{
	ktime_t end = ktime_add_us(ktime_get(), tv->polling);
	unsigned long flags;

	do {
		spin_lock_irqsave(&tv->lock, flags);
		tpm_virtio_take(tv);
		spin_unlock_irqrestore(&tv->lock, flags);
		if (tpm_virtio_returned(tv) || tpm_virtio_dead(tv))
			return;
		cpu_relax();
	} while (!need_resched() && ktime_before(ktime_get(), end));

	spin_lock_irqsave(&tv->lock, flags);
	if (tv->vq && !virtqueue_enable_cb(tv->vq))
		tpm_virtio_take(tv);
	spin_unlock_irqrestore(&tv->lock, flags);
}

/* Returns 0 if the device has returned the command, else why it was given up. */
static int tpm_virtio_wait(struct tpm_virtio *tv)
{
	long left;
	int why;

	if (tv->polling)
		tpm_virtio_poll(tv);
	left = wait_event_killable_timeout(tv->done,
					   tpm_virtio_returned(tv) ||
					   READ_ONCE(tv->abort) ||
					   tpm_virtio_dead(tv),
					   tpm_virtio_limit(tv));
	if (tpm_virtio_returned(tv))
		return 0;
	if (tpm_virtio_dead(tv))
		return -EIO;
	/*
	 * Only a killed caller cancels. A device that lets the time limit pass
	 * is beyond that, and a hypervisor may stall, or even die, on a write
	 * to the configuration of a device whose backend is gone. An unbind may
	 * be the attempt to replace just such a device, and resets it anyway.
	 */
	if (left < 0) {
		why = -EINTR;
		tpm_virtio_cancel(tv->chip);
	} else if (READ_ONCE(tv->abort)) {
		why = -ENODEV;
	} else {
		why = -ETIME;
	}

	/*
	 * The response of a command that still comes back is passed on: it says
	 * truly whether the TPM has executed or canceled it, and the core's
	 * resource manager must learn of handles that it created.
	 */
	wait_event_timeout(tv->done,
			   tpm_virtio_returned(tv) || tpm_virtio_dead(tv),
			   TPM_VIRTIO_GRACE);
	if (tpm_virtio_returned(tv))
		return 0;

	dev_err(&tv->vdev->dev,
		"command 0x%x was not answered (%d); no further command until it is\n",
		tv->ordinal, why);
	return why;
}

/*
 * Length of the response in tv->resp, or an error if what the device returned
 * is no response. The device's numbers bound each other: nothing beyond what it
 * says it wrote is passed on.
 */
static ssize_t tpm_virtio_response_len(struct tpm_virtio *tv)
{
	const struct tpm_header *header = (const struct tpm_header *)tv->resp;
	size_t used = tv->used;
	u32 len;

	if (tv->framed) {
		if (used != tpm_virtio_writable(tv) ||
		    tv->resp[tv->buffer_size] != VIRTIO_TPM_S_OK)
			return -EIO;
		used--;
	}
	if (used < TPM_HEADER_SIZE || used > tv->buffer_size)
		return -EIO;
	len = be32_to_cpu(READ_ONCE(header->length));
	if (len < TPM_HEADER_SIZE || len > used)
		return -EIO;
	return len;
}

static int tpm_virtio_recv(struct tpm_chip *chip, u8 *buf, size_t count)
{
	struct tpm_virtio *tv = tpm_virtio_of(chip);
	ssize_t len;
	int rc;

	rc = tpm_virtio_wait(tv);
	if (rc)
		return rc;

	len = tpm_virtio_response_len(tv);
	if (len > 0 && len > count)
		len = -E2BIG;
	/* The core compares the copy's header with the length returned here. */
	if (len > 0)
		memcpy(buf, tv->resp, len);

	/* Authorisations and unsealed secrets must not outlive the command. */
	memzero_explicit(tv->req, tv->buffer_size + 1);
	memzero_explicit(tv->resp, tv->buffer_size + 1);
	return len;
}

/**
 * tpm_virtio_exec() - one command and its response, below the TPM core
 * @tv: device
 * @buf: the command, replaced by the response
 * @len: length of the command
 * @count: size of @buf
 *
 * The caller holds chip->tpm_mutex or knows that the core is quiet.
 *
 * Return: length of the response or a negative error.
 */
int tpm_virtio_exec(struct tpm_virtio *tv, void *buf, size_t len, size_t count)
{
	int rc = tpm_virtio_submit(tv, buf, len);

	return rc ? rc : tpm_virtio_recv(tv->chip, buf, count);
}

/**
 * tpm_virtio_abort() - make the command in flight give up, for remove()
 * @tv: device
 *
 * tpm_chip_unregister() waits for the caller of that command. What the core
 * itself sends afterwards, such as TPM2_Shutdown, still gets a short chance.
 */
void tpm_virtio_abort(struct tpm_virtio *tv)
{
	unsigned long flags;

	spin_lock_irqsave(&tv->lock, flags);
	WRITE_ONCE(tv->removing, true);
	WRITE_ONCE(tv->abort, tv->in_flight);
	spin_unlock_irqrestore(&tv->lock, flags);
	wake_up_all(&tv->done);
}

static u8 tpm_virtio_status(struct tpm_chip *chip)
{
	return tpm_virtio_returned(tpm_virtio_of(chip)) ? TPM_VIRTIO_DONE : 0;
}

static bool tpm_virtio_req_canceled(struct tpm_chip *chip, u8 status)
{
	/* A canceled command has a response, which says so itself. */
	return false;
}

static int tpm_virtio_request_locality(struct tpm_chip *chip, int loc)
{
	struct tpm_virtio *tv = tpm_virtio_of(chip);

	if (loc < 0 || loc > tv->max_locality)
		return -EINVAL;
	tv->locality = loc;
	return loc;
}

/* A locality lasts for one command here: there is nothing to tell the device. */
static int tpm_virtio_relinquish_locality(struct tpm_chip *chip, int loc)
{
	tpm_virtio_of(chip)->locality = 0;
	return 0;
}

const struct tpm_class_ops tpm_virtio_ops = {
	.flags = TPM_OPS_AUTO_STARTUP,
	.req_complete_mask = TPM_VIRTIO_DONE,
	.req_complete_val = TPM_VIRTIO_DONE,
	.req_canceled = tpm_virtio_req_canceled,
	.send = tpm_virtio_send,
	.recv = tpm_virtio_recv,
	.cancel = tpm_virtio_cancel,
	.status = tpm_virtio_status,
	.request_locality = tpm_virtio_request_locality,
	.relinquish_locality = tpm_virtio_relinquish_locality,
};

