# SPDX-License-Identifier: Apache-2.0
#
# `make help` lists what there is. Every target first sees to what it needs
# (guest/lab/fetch.sh), so a fresh Debian 12 machine needs only git and make.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

CACHE := $(or $(HWVTPM_CACHE),$(CURDIR)/.cache)
BUILD := $(CURDIR)/build
export HWVTPM_CACHE := $(CACHE)
export PATH := $(CACHE)/bin:$(PATH)
export GOFLAGS := -mod=readonly $(filter-out -mod=%,$(GOFLAGS))

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X hwvtpm/internal/cli.buildVersion=$(VERSION)
TOOL := go tool -modfile=tools/go.mod
FETCH := @guest/lab/fetch.sh

FUZZTIME ?= 10s
TEST_FUZZTIME ?= 3s
BENCHFLAGS ?=
KERNEL ?= 6.12

DESTDIR ?=
PREFIX ?= /usr/local
LIBEXECDIR ?= $(PREFIX)/libexec/hwvtpm
VHOSTUSERDIR ?= $(PREFIX)/share/qemu/vhost-user
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
MANDIR ?= $(PREFIX)/share/man
HOOKDIR ?= /etc/libvirt/hooks/qemu.d

.PHONY: help
help: ## this list
	@echo "usage: make TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' Makefile
	@echo "variables: FUZZTIME=$(FUZZTIME) BENCHFLAGS= DESTDIR= PREFIX=$(PREFIX) HWVTPM_ACCEL=tcg|kvm"

.PHONY: prepare
prepare: ## fetch QEMU, guest kernels, packages (all targets do what they need)
	$(FETCH)

.PHONY: build
build: ## the programs, into build/
	$(FETCH) packages go
	@mkdir -p $(BUILD)
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/ ./cmd/vhost-user-vtpm ./cmd/coprocd ./cmd/vtpmctl ./cmd/vtpm-control ./cmd/vtpm-hostd ./cmd/vtpm-guest ./cmd/hwvtpm-libvirt-hook ./cmd/hwvtpm-swtpm ./guest/cmd/vtpm-agent
	CGO_ENABLED=1 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/ ./cmd/hwvtpm-engine

.PHONY: driver
driver: ## the guest's kernel module, for the kernel in KERNEL=6.12|6.1
	$(FETCH) packages kernel-$(KERNEL)
	@$(MAKE) -s $(BUILD)/tpm_virtio-$(KERNEL).ko

$(BUILD)/tpm_virtio-%.ko: $(wildcard guest/driver/*.[ch] guest/driver/Kbuild guest/driver/build.sh) | $(CACHE)/kernel-%/version
	@mkdir -p $(BUILD)
	guest/driver/build.sh $(CACHE)/kernel-$*/headers $@ W=1

.PHONY: image
image: build driver ## the guest images of the demo and the VM tests
	$(FETCH) tpm2-tools
	@go run ./guest/lab/mkguest -plain $(BUILD)/guest-plain.cpio -out $(BUILD)/guest.cpio -tools $(CACHE)/tpm2-tools -agent $(BUILD)/vtpm-agent -cache $(CACHE)/image $(BUILD)/tpm_virtio-$(KERNEL).ko

.PHONY: demo
demo: ## boot a VM with a vTPM and walk through its life
	$(FETCH) packages go
	@go run ./guest/cmd/demo

.PHONY: test test-unit test-root test-vm
test: ## the three test tiers and a short run of the fuzz targets
	$(FETCH)
	@FUZZTIME=$(TEST_FUZZTIME) go run ./guest/lab/testrun unit plain root vm fuzz
test-unit: ## hermetic tests, with and without the race detector
	$(FETCH) packages go
	@go run ./guest/lab/testrun unit plain
test-root: ## tests that need root, system packages or other programs
	$(FETCH) packages go qemu kernel-6.12 debian-12
	@go run ./guest/lab/testrun root
test-vm: ## tests that boot virtual machines
	$(FETCH)
	@go run ./guest/lab/testrun vm

.PHONY: fuzz
fuzz: ## every fuzz target, FUZZTIME each
	$(FETCH) packages go
	@FUZZTIME=$(FUZZTIME) go run ./guest/lab/testrun fuzz

.PHONY: bench
bench: ## measure against swtpm and write docs/benchmarks.md (BENCHFLAGS=--quick)
	$(FETCH)
	@go run ./guest/cmd/bench $(BENCHFLAGS)

.PHONY: check
check: ## formatting, vet, staticcheck, modernizer, house rules, shell syntax
	$(FETCH) packages go
	@echo "gofmt" && test -z "$$(gofmt -l $$(git ls-files '*.go') | tee /dev/stderr)"
	@echo "go vet" && go vet ./... && go vet -tags vsock_loopback ./vtpm/door/vsock
	@echo "staticcheck" && $(TOOL) staticcheck ./...
	@echo "go fix -diff" && go fix -diff ./...
	@echo "go mod verify" && go mod verify >/dev/null
	@echo "house rules" && go test ./guest/lab/houserules
	@echo "shell syntax" && for f in $$(git ls-files '*.sh' .ci/run); do bash -n $$f; done

.PHONY: man
man: build ## manual pages, made from the programs' own help
	@go run ./packaging/mkman -programs $(BUILD) -out $(BUILD)/man

.PHONY: install
install: man ## programs, manual, systemd units, libvirt hook, QEMU's description
	install -d -m 0755 $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(LIBEXECDIR) $(DESTDIR)$(VHOSTUSERDIR) $(DESTDIR)$(UNITDIR) \
		$(DESTDIR)$(SYSUSERSDIR) $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man8 $(DESTDIR)$(HOOKDIR)
	install -m 0755 $(addprefix $(BUILD)/,vhost-user-vtpm vtpmctl coprocd vtpm-hostd vtpm-control vtpm-guest hwvtpm-libvirt-hook) $(DESTDIR)$(PREFIX)/bin
	install -m 0755 $(addprefix $(BUILD)/,hwvtpm-engine hwvtpm-swtpm) $(DESTDIR)$(LIBEXECDIR)
	install -d -m 0755 $(DESTDIR)$(LIBEXECDIR)/swtpm-compat
	for name in swtpm swtpm_setup swtpm_ioctl; do ln -sfn ../hwvtpm-swtpm $(DESTDIR)$(LIBEXECDIR)/swtpm-compat/$$name; done
	install -m 0644 $(BUILD)/man/*.1 $(DESTDIR)$(MANDIR)/man1
	install -m 0644 $(BUILD)/man/*.8 $(DESTDIR)$(MANDIR)/man8
	for name in hwvtpm hwvtpm-control; do install -m 0644 packaging/$$name.sysusers $(DESTDIR)$(SYSUSERSDIR)/$$name.conf; done
	@place() { sed 's,@BINDIR@,$(PREFIX)/bin,;s,@LIBEXECDIR@,$(LIBEXECDIR),' "$$1" >"$$2" && chmod "$$3" "$$2"; }; \
	place cmd/vhost-user-vtpm/50-vhost-user-vtpm.json $(DESTDIR)$(VHOSTUSERDIR)/50-vhost-user-vtpm.json 0644; \
	place packaging/libvirt-hook.sh $(DESTDIR)$(HOOKDIR)/hwvtpm 0755; \
	for unit in cmd/coprocd/coprocd.service cmd/coprocd/coprocd.socket cmd/vhost-user-vtpm/vhost-user-vtpm@.service cmd/vtpm-hostd/vtpm-hostd.service cmd/vtpm-control/vtpm-control.service cmd/vtpm-guest/vtpm-guest-enrol.service cmd/vtpm-guest/vtpm-guest-enrol.timer; do \
		place $$unit $(DESTDIR)$(UNITDIR)/$$(basename $$unit) 0644; done

.PHONY: deb
deb: ## Debian packages, into build/deb
	$(FETCH) packages go
	@packaging/deb.sh $(BUILD)/deb

.PHONY: clean distclean
clean: ## remove what was built
	rm -rf $(BUILD) coverage
distclean: clean ## remove what was fetched too
	rm -rf $(CACHE)
