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
LDFLAGS := -s -w -X main.buildVersion=$(VERSION)
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
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/ ./cmd/vhost-user-vtpm ./cmd/coprocd ./cmd/vtpmctl ./guest/cmd/vtpm-agent
	CGO_ENABLED=1 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/ ./cmd/hwvtpm-engine

.PHONY: driver
driver: ## the guest's kernel module, for the kernel in KERNEL=6.12|6.1
	$(FETCH) packages kernel-$(KERNEL)
	@$(MAKE) -s $(BUILD)/tpm_virtio-$(KERNEL).ko

$(BUILD)/tpm_virtio-%.ko: $(wildcard guest/driver/*.[ch] guest/driver/Kbuild guest/driver/build.sh) | $(CACHE)/kernel-%/version
	@mkdir -p $(BUILD)
	guest/driver/build.sh $(CACHE)/kernel-$*/headers $@ W=1

.PHONY: image
image: build driver ## the guest image of the demo and the VM tests
	@go run ./guest/lab/mkguest -out $(BUILD)/guest.cpio -agent $(BUILD)/vtpm-agent -cache $(CACHE)/image $(BUILD)/tpm_virtio-$(KERNEL).ko

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
	$(FETCH) packages go qemu
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
	@echo "go vet" && go vet ./...
	@echo "staticcheck" && $(TOOL) staticcheck ./...
	@echo "go fix -diff" && go fix -diff ./...
	@echo "go mod verify" && go mod verify >/dev/null
	@echo "house rules" && go test ./guest/lab/houserules
	@echo "shell syntax" && for f in $$(git ls-files '*.sh' .ci/run); do bash -n $$f; done

.PHONY: install
install: build ## programs, systemd units, QEMU's description of the backend
	install -D -m 0755 $(BUILD)/vhost-user-vtpm $(DESTDIR)$(PREFIX)/bin/vhost-user-vtpm
	install -D -m 0755 $(BUILD)/vtpmctl $(DESTDIR)$(PREFIX)/bin/vtpmctl
	install -D -m 0755 $(BUILD)/coprocd $(DESTDIR)$(PREFIX)/bin/coprocd
	install -D -m 0755 $(BUILD)/hwvtpm-engine $(DESTDIR)$(LIBEXECDIR)/hwvtpm-engine
	install -d -m 0755 $(DESTDIR)$(VHOSTUSERDIR)
	sed 's,@BINDIR@,$(PREFIX)/bin,' cmd/vhost-user-vtpm/50-vhost-user-vtpm.json >$(DESTDIR)$(VHOSTUSERDIR)/50-vhost-user-vtpm.json
	chmod 0644 $(DESTDIR)$(VHOSTUSERDIR)/50-vhost-user-vtpm.json
	install -d -m 0755 $(DESTDIR)$(UNITDIR)
	for unit in coprocd.service coprocd.socket; do \
		sed 's,@BINDIR@,$(PREFIX)/bin,;s,@LIBEXECDIR@,$(LIBEXECDIR),' cmd/coprocd/$$unit >$(DESTDIR)$(UNITDIR)/$$unit; \
		chmod 0644 $(DESTDIR)$(UNITDIR)/$$unit; done

.PHONY: clean distclean
clean: ## remove what was built
	rm -rf $(BUILD) coverage
distclean: clean ## remove what was fetched too
	rm -rf $(CACHE)
