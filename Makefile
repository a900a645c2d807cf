# Every target is a short script under scripts/; this file only names them.
# `make help` lists them.

PREFIX ?= /usr/local
SHELL := /bin/bash

.DEFAULT_GOAL := build
.PHONY: build demo test nat bench bench-server bench-kill soak install clean help

build: ## the library and the fmi command, in target/release
	@scripts/dependencies.sh build
	@source scripts/common.sh && build_release

demo: ## build everything and run k-means in C on four ranks
	@time scripts/demo.sh

test: ## every test; installs missing tools through apt when it may
	@scripts/test.sh

nat: ## ranks behind NATs of every kind, all pairs; needs root
	@scripts/nat.sh

bench: ## figures of this machine, next to plain TCP
	@scripts/bench.sh

bench-server: ## an honest pair at a server with 10,000 idle connections
	@scripts/bench-server.sh

bench-kill: ## how soon survivors know of a killed rank: FMI_RUNS=100
	@scripts/bench-kill.sh

soak: ## engine, rendezvous and closing under many random schedules: FMI_SEEDS=100000
	@scripts/soak.sh

install: ## install into PREFIX (default /usr/local), honours DESTDIR
	@scripts/install.sh "$(PREFIX)"

clean: ## remove all that was built
	cargo clean
	rm -rf build

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
