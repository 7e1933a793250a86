// SPDX-License-Identifier: GPL-2.0
/*
 * TPM 2.0 behind a virtqueue.
 *
 * The driver gives the kernel's TPM core (/dev/tpm0, /dev/tpmrm0) a transport
 * that completes by interrupt. It never polls: a command is one chain on queue
 * 0, and the caller sleeps until the device hands that chain back. This file
 * binds devices; command.c carries the commands.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/slab.h>

#include "tpm_core.h"
#include "tpm_virtio.h"
#include "virtio_tpm.h"

static unsigned int virtio_id = VIRTIO_ID_TPM_DEFAULT;
module_param(virtio_id, uint, 0444);
MODULE_PARM_DESC(virtio_id, "virtio device id of the TPM (default 38)");

static char *layout = "auto";
module_param(layout, charp, 0444);
MODULE_PARM_DESC(layout, "request layout: auto, plain or framed (default auto)");

unsigned int tpm_virtio_min_timeout_ms = 30000;
module_param_named(min_timeout_ms, tpm_virtio_min_timeout_ms, uint, 0644);
MODULE_PARM_DESC(min_timeout_ms,
		 "shortest time any command may take, in milliseconds (default 30000)");

unsigned int tpm_virtio_poll_us = 100;
module_param_named(poll_us, tpm_virtio_poll_us, uint, 0644);
MODULE_PARM_DESC(poll_us,
		 "how long to watch for a response before sleeping, in microseconds; 0: sleep at once (default 100)");

static int tpm_virtio_read_config(struct tpm_virtio *tv)
{
	struct virtio_device *vdev = tv->vdev;
	u8 version = 2;

	tv->framed = virtio_has_feature(vdev, VIRTIO_TPM_F_FRAMED);
	tv->can_cancel = virtio_has_feature(vdev, VIRTIO_TPM_F_CANCEL);
	tv->buffer_size = VIRTIO_TPM_DEFAULT_BUFFER_SIZE;
	if (virtio_has_feature(vdev, VIRTIO_TPM_F_BUFSIZE)) {
		virtio_cread_le(vdev, struct virtio_tpm_config, buffer_size,
				&tv->buffer_size);
		virtio_cread_le(vdev, struct virtio_tpm_config, tpm_version,
				&version);
		virtio_cread_le(vdev, struct virtio_tpm_config, max_locality,
				&tv->max_locality);
	}
	if (version != 2) {
		dev_err(&vdev->dev, "TPM version %u is not supported\n", version);
		return -ENODEV;
	}
	if (tv->buffer_size < TPM_HEADER_SIZE) {
		dev_err(&vdev->dev, "buffer size %u is too small\n",
			tv->buffer_size);
		return -EINVAL;
	}
	return 0;
}

static int tpm_virtio_start_queue(struct tpm_virtio *tv)
{
	struct virtqueue *vq;

	vq = virtio_find_single_vq(tv->vdev, tpm_virtio_done, "command");
	if (IS_ERR(vq))
		return PTR_ERR(vq);
	tv->vq = vq;
	virtio_device_ready(tv->vdev);
	return 0;
}

/*
 * After the reset the device has forgotten the chain that it may have held. The
 * ring has not: the chain's buffers stay mapped for the device, and its indirect
 * table allocated, until it is taken off.
 */
static void tpm_virtio_stop_queue(struct tpm_virtio *tv)
{
	unsigned long flags;

	virtio_reset_device(tv->vdev);
	spin_lock_irqsave(&tv->lock, flags);
	if (tv->vq)
		virtqueue_detach_unused_buf(tv->vq);
	tv->vq = NULL;
	spin_unlock_irqrestore(&tv->lock, flags);
	tv->vdev->config->del_vqs(tv->vdev);
	tv->in_flight = false;
	tv->needs_reset = false;
}

static int tpm_virtio_alloc_buffers(struct tpm_virtio *tv)
{
	/* From kmalloc, one object each: both are mapped for DMA. */
	tv->req = kzalloc(tv->buffer_size + 1, GFP_KERNEL);
	tv->resp = kzalloc(tv->buffer_size + 1, GFP_KERNEL);
	return tv->req && tv->resp ? 0 : -ENOMEM;
}

static void tpm_virtio_free_buffers(struct tpm_virtio *tv)
{
	kfree_sensitive(tv->req);
	kfree_sensitive(tv->resp);
}

static int tpm_virtio_register(struct tpm_virtio *tv)
{
	struct tpm_chip *chip;

	/* Sets the device's driver data, where tpm_pm_suspend() looks for it. */
	chip = tpmm_chip_alloc(&tv->vdev->dev, &tpm_virtio_ops);
	if (IS_ERR(chip))
		return PTR_ERR(chip);
	tv->chip = chip;
	dev_set_drvdata(&chip->dev, tv);
	/* IRQ: recv() sleeps until the response is there, so do not poll. */
	chip->flags |= TPM_CHIP_FLAG_TPM2 | TPM_CHIP_FLAG_IRQ;
	return tpm_chip_register(chip);
}

static int tpm_virtio_probe(struct virtio_device *vdev)
{
	struct tpm_virtio *tv;
	int rc;

	/* Devres: lives until after the chip, which tpmm_chip_alloc() adds. */
	tv = devm_kzalloc(&vdev->dev, sizeof(*tv), GFP_KERNEL);
	if (!tv)
		return -ENOMEM;
	tv->vdev = vdev;
	vdev->priv = tv;
	spin_lock_init(&tv->lock);
	init_waitqueue_head(&tv->done);

	rc = tpm_virtio_read_config(tv);
	if (rc)
		return rc;
	rc = tpm_virtio_alloc_buffers(tv);
	if (rc)
		goto free_buffers;
	rc = tpm_virtio_start_queue(tv);
	if (rc)
		goto free_buffers;
	rc = tpm_virtio_register(tv);
	if (rc)
		goto stop_queue;

	dev_info(&vdev->dev, "%s: %s layout, %u byte buffers%s\n",
		 dev_name(&tv->chip->dev), tv->framed ? "framed" : "plain",
		 tv->buffer_size, tv->can_cancel ? ", cancel" : "");
	return 0;

stop_queue:
	tpm_virtio_stop_queue(tv);
free_buffers:
	tpm_virtio_free_buffers(tv);
	return rc;
}

static void tpm_virtio_remove(struct virtio_device *vdev)
{
	struct tpm_virtio *tv = vdev->priv;

	tpm_virtio_abort(tv);
	tpm_chip_unregister(tv->chip);
	tpm_virtio_stop_queue(tv);
	tpm_virtio_free_buffers(tv);
}

/* The device asks for a reset: it will not answer any more. */
static void tpm_virtio_config_changed(struct virtio_device *vdev)
{
	struct tpm_virtio *tv = vdev->priv;

	if (!(vdev->config->get_status(vdev) & VIRTIO_CONFIG_S_NEEDS_RESET))
		return;
	WRITE_ONCE(tv->needs_reset, true);
	wake_up_all(&tv->done);
}

static int tpm_virtio_validate(struct virtio_device *vdev)
{
	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1)) {
		dev_err(&vdev->dev, "a legacy device has no TPM\n");
		return -ENODEV;
	}
	if (!strcmp(layout, "plain"))
		__virtio_clear_bit(vdev, VIRTIO_TPM_F_FRAMED);
	if (!strcmp(layout, "framed") &&
	    !virtio_has_feature(vdev, VIRTIO_TPM_F_FRAMED)) {
		dev_err(&vdev->dev, "the device has no framed layout\n");
		return -ENODEV;
	}
	return 0;
}

#ifdef CONFIG_PM_SLEEP
static int tpm_virtio_freeze(struct virtio_device *vdev)
{
	int rc;

	/* Sends TPM2_Shutdown(STATE) and keeps the core from sending more. */
	rc = tpm_pm_suspend(&vdev->dev);
	if (rc)
		return rc;
	tpm_virtio_stop_queue(vdev->priv);
	return 0;
}

/*
 * A platform's firmware would resume its TPM before the kernel does. No
 * firmware knows this device, so after a hibernation, when the TPM has lost
 * power, this is the driver's duty. A TPM that kept running says so.
 */
static void tpm_virtio_startup_state(struct tpm_virtio *tv)
{
	struct {
		struct tpm_header header;
		__be16 type;
	} __packed cmd = {
		.header.tag = cpu_to_be16(TPM2_ST_NO_SESSIONS),
		.header.length = cpu_to_be32(sizeof(cmd)),
		.header.ordinal = cpu_to_be32(TPM2_CC_STARTUP),
		.type = cpu_to_be16(TPM2_SU_STATE),
	};
	u32 tpm_rc;
	int rc;

	mutex_lock(&tv->chip->tpm_mutex);
	rc = tpm_virtio_exec(tv, &cmd, sizeof(cmd), sizeof(cmd));
	mutex_unlock(&tv->chip->tpm_mutex);

	tpm_rc = be32_to_cpu(cmd.header.return_code);
	if (rc < 0)
		dev_warn(&tv->vdev->dev, "TPM2_Startup(STATE): error %d\n", rc);
	else if (tpm_rc && tpm_rc != TPM2_RC_INITIALIZE)
		dev_warn(&tv->vdev->dev, "TPM2_Startup(STATE): TPM error 0x%x\n",
			 tpm_rc);
}

static int tpm_virtio_restore(struct virtio_device *vdev)
{
	struct tpm_virtio *tv = vdev->priv;
	int rc;

	rc = tpm_virtio_start_queue(tv);
	if (rc)
		return rc;
	tpm_virtio_startup_state(tv);
	return tpm_pm_resume(&vdev->dev);
}
#endif

static const unsigned int tpm_virtio_features[] = {
	VIRTIO_TPM_F_FRAMED,
	VIRTIO_TPM_F_BUFSIZE,
	VIRTIO_TPM_F_CANCEL,
};

/* Not const: the parameter virtio_id replaces the number at load time. */
static struct virtio_device_id tpm_virtio_ids[] = {
	{ VIRTIO_ID_TPM_DEFAULT, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, tpm_virtio_ids);

static struct virtio_driver tpm_virtio_driver = {
	.driver.name = KBUILD_MODNAME,
	.driver.owner = THIS_MODULE,
	.id_table = tpm_virtio_ids,
	.feature_table = tpm_virtio_features,
	.feature_table_size = ARRAY_SIZE(tpm_virtio_features),
	.validate = tpm_virtio_validate,
	.probe = tpm_virtio_probe,
	.remove = tpm_virtio_remove,
	.config_changed = tpm_virtio_config_changed,
#ifdef CONFIG_PM_SLEEP
	.freeze = tpm_virtio_freeze,
	.restore = tpm_virtio_restore,
#endif
};

static int __init tpm_virtio_init(void)
{
	static const char * const layouts[] = { "auto", "plain", "framed" };

	if (match_string(layouts, ARRAY_SIZE(layouts), layout) < 0) {
		pr_err("layout must be auto, plain or framed\n");
		return -EINVAL;
	}
	/* 0 is reserved, and would end the table. */
	if (!virtio_id) {
		pr_err("virtio_id must not be 0\n");
		return -EINVAL;
	}
	tpm_virtio_ids[0].device = virtio_id;
	return register_virtio_driver(&tpm_virtio_driver);
}
module_init(tpm_virtio_init);

static void __exit tpm_virtio_exit(void)
{
	unregister_virtio_driver(&tpm_virtio_driver);
}
module_exit(tpm_virtio_exit);

MODULE_DESCRIPTION("TPM 2.0 over virtio");
MODULE_AUTHOR("The hwvtpm authors");
MODULE_LICENSE("GPL");
