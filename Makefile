# make demo    shows it work on this machine, from nothing      make test   tests everything
# make build   the five programs, into build/bin                make help   the rest

GO ?= go
export PATH := $(PATH):/usr/sbin:/sbin

LDFLAGS := $(shell installer/tools/version ldflags)
GOBUILD := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'

COMMANDS  := batchwardend batchwarden batchwarden-launcher batchwarden-sync
PLATFORMS := linux/amd64 linux/s390x windows/amd64
DEVSERVER := $(shell find vault/devserver -type f ! -name '*_test.go' 2>/dev/null)

# Its tests look for whatever a job's user has left on the machine, so that they run twice one after the other.
ALONE := ./platform/launch/keeper

# The packages whose tests run a second time with the race detector, where there is a C compiler.
RACE := ./daemon/audit ./daemon/broker ./daemon/config ./daemon/limits ./daemon/metrics ./daemon/strict ./daemon/policy/... ./daemon/cmd/batchwarden ./ipc/... ./vault/snapshot/... ./vault/sealed/... ./vault/refresh/... ./platform/launch ./platform/launch/become $(ALONE)

# Those that run under qemu-user in make test: whatever a disk, a pipe or a policy has in it is the same on a big-endian
# machine. Not there: installer/... and daemon's own tests, whose machine is made with clone flags that qemu-user does not
# know, as are platform/account/nss, platform/pam and vault/admin; platform/peer and platform/heap, as /proc and the page
# faults are those of qemu; daemon/cmd/batchwarden-sync and vault/vaulttest, which work by a server and are in vault/remote.
S390X := ./daemon/audit ./daemon/broker ./daemon/cmd/batchwarden ./daemon/cmd/batchwarden-launcher ./daemon/config ./daemon/doctor \
	./daemon/limits ./daemon/metrics ./daemon/policy/... ./daemon/strict ./ipc/... ./platform/account ./platform/boottime ./platform/disk \
	./platform/hostkey/... ./platform/kernel ./platform/launch ./platform/localsock ./platform/process ./platform/safefile ./vault/documents \
	./vault/errand ./vault/probe ./vault/refresh ./vault/remote ./vault/sealed ./vault/snapshot
# What takes long there and is about speed or chance, or about what qemu-user does otherwise: it loses descriptors that do
# not fit (RequestsBroken, FuzzRequests), has other file times (ChangesAreSeen), and starts itself no second time (DiskF, TestKilled).
S390X_SKIP := Speed|Soak|Quick|Megabytes|HundredThousand|AskFindsWhatIsGone|TextAgainstValues|TooLong|FuzzBodies|TestContract|CrashesAreFound|CutAnywhere|FailedWrites|RequestsBroken|FuzzRequests|ChangesAreSeen|DiskFills|DiskFullAnywhere|TestKilled|TestAssemble
# Those that start themselves or other programs again, with installer/tools/s390x. Without memfd_secret and signal stacks
# (MemguardRegion, SignalsLeaveNothing); of the launcher what starts no job, as qemu-user before 9 gives no pidfd with a
# process. That a job becomes another user is shown by platform/launch/become.
S390X_ROOT      := ./platform/lockmem ./platform/confine ./platform/launch/become
S390X_ROOT_SKIP := MemguardRegion|SignalsLeaveNothing|MalformedS390X|Speed
S390X_KEEPER    := Golden|NewerJournalIsRefused|OneDaemon|ProgramOfOthers|Checks|NotFoundByLimits|Resolve|Witness|Neighbour|Fuzz

# The soak's own limits; see "make help".
SOAK_TIME ?= 10m
SOAK_SEED ?= 1

.PHONY: help build devserver rootfs promtool test test-here test-elsewhere test-s390x test-systemd vet race lint demo playground bench soak clean dist need-build need-test need-systemd need-demo need-bench need-lint need-dist

help:
	@echo 'make build        batchwardend, batchwarden, batchwarden-launcher, batchwarden-become, batchwarden-sync into build/bin'
	@echo 'make demo         the whole path on a real server and real accounts, step by step; leaves nothing behind'
	@echo 'make playground   the same set-up, kept until Ctrl-C, with commands to try'
	@echo 'make test         everything, real server and real accounts included (as root; otherwise without those)'
	@echo 'make test-s390x   formats and pipes on a big-endian machine, under qemu-user (part of make test)'
	@echo 'make test-systemd install, use, upgrade and remove in a booted systemd (as root; part of make test)'
	@echo 'make bench        every figure as a ratio to a reference measured in the same run'
	@echo 'make soak         long runs: SOAK_TIME=10m each, SOAK_SEED=1, SOAK=pattern to choose'
	@echo 'make lint         gofmt, go vet, staticcheck, shellcheck, known vulnerabilities, licences (VULN=must: fail without network)'
	@echo 'make dist         deb, rpm and apk for amd64 and s390x, into build/dist'
	@echo 'make devserver    the Vault-compatible server for tests, into build/tools'
	@echo 'make clean        removes build/'

build: need-build
	@mkdir -p build/bin
	$(GOBUILD) -o build/bin/ $(COMMANDS:%=./daemon/cmd/%)
	platform/launch/become/child/compile build/bin/batchwarden-become
	platform/account/nss/helper/compile build/bin/batchwarden-nss
	platform/pam/helper/compile build/bin/batchwarden-pam

devserver: build/tools/devserver

# A module of its own, so that the server's many dependencies are not ours.
build/tools/devserver: $(DEVSERVER)
	@mkdir -p build/tools
	@echo 'building the test server; the first time this takes a few minutes'
	cd vault/devserver && CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags='-s -w' -o ../../build/tools/devserver .
	@touch $@

test: need-test build devserver rootfs promtool vet build/tools/nfpm
	@$(MAKE) --no-print-directory -j2 test-here test-elsewhere
	@$(MAKE) --no-print-directory race RACE='$(ALONE)'

# Most of the first waits for processes to start and end, so that the second runs beside it.
test-here:
	CGO_ENABLED=0 $(GO) test -count=1 -timeout 20m ./...
	cd vault/devserver && CGO_ENABLED=0 $(GO) test -count=1 ./...
	cd daemon/policy/bench && CGO_ENABLED=0 $(GO) vet . && CGO_ENABLED=0 $(GO) test -count=1 .
test-elsewhere:
	@$(MAKE) --no-print-directory test-s390x
	@$(MAKE) --no-print-directory race RACE='$(filter-out $(ALONE),$(RACE))'

test-systemd: need-systemd build devserver rootfs build/tools/nfpm
	BATCHWARDEN_NO_SKIP=1 CGO_ENABLED=0 $(GO) test -count=1 -v -run '^(TestSystemd|TestCredentials|TestInstall.*|TestPackage)$$' ./daemon

# What the machine that TestSystemd boots is made of. The underscore keeps go from looking for packages in it.
rootfs:
	@mkdir -p build
	@installer/tools/rootfs build/_rootfs

# Prometheus's own checker of what the daemon tells it, and of the alert rules.
promtool:
	@installer/tools/promtool build/tools/promtool

# What lies on disks and goes through pipes is the same on a big-endian machine. CC is for what tests compile.
test-s390x: export CC := s390x-linux-gnu-gcc
test-s390x:
	@if command -v qemu-s390x-static >/dev/null; then set -x; \
		CGO_ENABLED=0 GOARCH=s390x $(GO) test -exec qemu-s390x-static -count=1 -short -skip '$(S390X_SKIP)' $(S390X); \
	else echo 'no qemu-s390x-static: nothing ran for s390x; as root: apt-get install qemu-user-static'; \
		test "$$BATCHWARDEN_NO_SKIP" != 1; fi
	@if installer/tools/s390x true; then set -x; mkdir -p build/s390x; \
		CGO_ENABLED=0 GOARCH=s390x $(GO) test -exec '$(CURDIR)/installer/tools/s390x' -count=1 -short -skip '$(S390X_ROOT_SKIP)' $(S390X_ROOT) && \
		platform/launch/become/child/compile build/s390x/batchwarden-become && \
		BATCHWARDEN_TEST_ROLE=inside BATCHWARDEN_TEST_BECOME=$(CURDIR)/build/s390x/batchwarden-become \
		CGO_ENABLED=0 GOARCH=s390x $(GO) test -exec '$(CURDIR)/installer/tools/s390x' -count=1 -short -run '$(S390X_KEEPER)' ./platform/launch/keeper; \
	else echo 'programs for s390x that start each other did not run'; \
		test "$$BATCHWARDEN_NO_SKIP" != 1 || uname -r | awk -F. '{ exit $$1 * 1000 + $$2 >= 6007 }'; fi

# A program that was built for it waits for a second before it exits; the tests start and end hundreds.
race: export GORACE := atexit_sleep_ms=20
race:
	@if command -v cc >/dev/null; then set -x; CGO_ENABLED=1 $(GO) test -race -count=1 -short -timeout 20m $(RACE); \
	else echo 'no C compiler: the race detector did not run; as root: apt-get install gcc libc6-dev'; fi

vet:
	@for p in $(PLATFORMS); do \
		echo "go vet for $$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) vet ./... || exit 1; \
	done

demo: need-demo build devserver
	@$(GOBUILD) -o build/tools/demo ./installer/demo
	@build/tools/demo

playground: need-demo build devserver
	@$(GOBUILD) -o build/tools/demo ./installer/demo
	@build/tools/demo -playground

bench: need-bench build devserver
	@$(GOBUILD) -o build/tools/bench ./installer/bench
	@build/tools/bench --check
	cd daemon/policy/bench && CGO_ENABLED=0 $(GO) run . --check

soak: need-test build devserver
	BATCHWARDEN_SOAK=1 BATCHWARDEN_SOAK_TIME=$(SOAK_TIME) BATCHWARDEN_SEED=$(SOAK_SEED) \
		CGO_ENABLED=0 $(GO) test -count=1 -timeout 0 -v -p 1 -run 'Soak.*$(SOAK)' ./...

lint: need-lint build/tools/staticcheck build/tools/govulncheck
	@echo gofmt
	@x=$$(gofmt -l daemon vault platform ipc installer); if [ -n "$$x" ]; then echo "not formatted: $$x"; exit 1; fi
	@$(MAKE) --no-print-directory vet
	cd vault/devserver && $(GO) vet .
	@for os in linux windows; do \
		echo "staticcheck for $$os"; \
		CGO_ENABLED=0 GOOS=$$os GOARCH=amd64 build/tools/staticcheck ./... || exit 1; \
	done
	@if command -v shellcheck >/dev/null; then echo shellcheck; \
		shellcheck --severity=warning $$(grep -rlE '^#!/(usr/)?bin/(env )?(ba)?sh' .ci daemon vault platform ipc installer --exclude='*.go' --exclude='*.md'); \
	else echo 'no shellcheck: scripts were not checked'; fi
	@GO='$(GO)' installer/tools/supply-chain

dist: need-dist build/tools/nfpm
	@GO='$(GO)' installer/package/dist

# Each of the tools' main packages, built once.
TOOL_staticcheck  := honnef.co/go/tools/cmd/staticcheck
TOOL_govulncheck  := golang.org/x/vuln/cmd/govulncheck
TOOL_nfpm         := github.com/goreleaser/nfpm/v2/cmd/nfpm
build/tools/staticcheck build/tools/govulncheck build/tools/nfpm: build/tools/%: installer/tools/go.mod installer/tools/go.sum
	@mkdir -p build/tools
	cd installer/tools && CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags='-s -w' -o ../../build/tools/$* $(TOOL_$*)
	@touch $@

need-build need-test need-systemd need-demo need-bench need-lint need-dist: need-%:
	@installer/tools/need $*

clean:
	rm -rf build
