#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Starts and stops the vTPM of libvirt domains whose metadata names a slot. Change
# the flags here: hwvtpm-libvirt-hook(8) explains them. libvirtd must be restarted
# when this file is new.
exec @BINDIR@/hwvtpm-libvirt-hook hook --group kvm -- "$@"
