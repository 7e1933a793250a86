// SPDX-License-Identifier: Apache-2.0

// Package packaging holds what makes Debian packages of the programs: deb.sh puts
// them together, debian has their control files, mkman makes the manual pages. Its
// tests install the packages into a clean Debian.
package packaging
