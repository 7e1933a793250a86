// SPDX-License-Identifier: Apache-2.0

// Package vfio hands a PCI function to a process by the kernel's VFIO: its
// configuration space, its BARs, its interrupts as eventfds, and an address
// space of its own for its DMA (linux/vfio.h, linux/iommufd.h; Linux,
// Documentation/driver-api/vfio.rst).
//
// There are two ways to a function, and a kernel may have either or both:
//
//	group    /dev/vfio/vfio + /dev/vfio/<group>       all kernels up to now
//	iommufd  /dev/iommu + /dev/vfio/devices/vfio<n>   6.6 and later, if built in
//
// Both need an IOMMU, and the function bound to vfio-pci. Errors say which of
// the conditions is not met and what to do.
//
// A [Device] has no lock: its methods may be called from any goroutine, but
// not during or after Close.
package vfio
