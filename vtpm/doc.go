// SPDX-License-Identifier: Apache-2.0

// Package vtpm is the virtual trusted platform module of one virtual machine:
// the virtio device that a guest talks to, in front of a coprocessor slot
// that holds the TPM itself.
//
// # One request
//
// A guest driver puts a TPM 2.0 command on the command queue; package
// vhostuser copies it out of guest memory and calls [Device.Handle]. The
// device reads the layout's few extra bytes and the 10-byte TPM header, checks
// both, gives the raw command to its [coproc.Slot] and copies the raw response
// back. Nothing else of the command is parsed, and no command is ever altered.
// The wire format is specified in docs/virtio-vtpm.md.
//
// # When the TPM is reset
//
// PCRs are worth something only if a guest can't choose when they start over.
// A virtio device sees the same thing when a driver is unbound, when a kernel
// is kexec'ed and when the machine is rebooted: its ring stops and starts
// again. So the device never takes a ring restart for a reset. It asks a
// [Monitor], QEMU's QMP socket in practice, and resets the TPM exactly when
// the virtual machine was reset. See [ResetPolicy] for what happens without a
// monitor.
//
// A run is the life of one QEMU process. A new run is a power-on; the same run
// coming back (the backend was restarted, the device was unplugged and plugged
// again) finds its PCRs as they were. See [PeerRun].
//
// # Goroutines
//
// A Device is safe for concurrent use. Handle is called by the ring's
// goroutine, one request at a time; all other methods may be called while it
// runs.
package vtpm
