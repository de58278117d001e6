# make run           a demonstration that needs nothing installed
# make build         the program, ./eventpusher, one static binary
# make test          every test, against real servers (installs them when missing; root)
# make servers       Debian 13 and its backports with their servers, in the user's cache
# make test-servers  the tests that need servers, in both; it prints a table (root)
# make soak          what takes longer than a test may: outages, kills and a million
#                    events under load, instances that are paused and killed, about 30
#                    minutes; it prints what it has measured
# make bench         the benchmarks, and how much faster than mellium stanzas come in
# make lint          gofmt, go vet, staticcheck
# make vuln          known vulnerabilities in what is linked in (govulncheck); it needs
#                    vuln.go.dev, or a copy of its database named by VULN_DB
# make image         the container image (image.mk)
# make release       archives, Debian packages, SBOM and checksums (release.mk)

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# Packages tested at a time. Each may run servers of its own, so more than the
# processors can carry makes the tests slower, not faster.
TEST_PARALLEL ?= 2
TEST_FLAGS    ?=
BENCH_TIME    ?= 1s
BENCH_COUNT   ?= 1

.DEFAULT_GOAL := build
.PHONY: run build test servers test-servers soak bench lint vuln clean

run: build
	./eventpusher demo

# CGO_ENABLED=0 makes the binary static; it needs no C compiler either.
build:
	CGO_ENABLED=0 $(GO) build -ldflags '-X main.version=$(VERSION)' -o eventpusher .

# The package that takes longest begins, so that the others are done beside it. A
# package that hangs shows its goroutines after the timeout, which is more than twice
# what the longest takes on a busy machine.
test:
	./internal/harness/install.sh
	$(GO) test -race -timeout 30m -p $(TEST_PARALLEL) $(TEST_FLAGS) ./internal/e2e ./...

servers:
	./internal/harness/servers.sh build

test-servers:
	./internal/harness/servers.sh test

# One package at a time, since some of it is measured. Everything is in
# dist/soak.txt.
soak:
	./internal/harness/install.sh
	@mkdir -p dist
	$(GO) test -tags soak -count 1 -v -timeout 25m -p 1 -run '^TestSoak' ./pusher/... ./internal/app ./internal/e2e >dist/soak.txt \
		|| { grep -v -e 'level=INFO' -e 'level=WARN' dist/soak.txt | tail -n 100; exit 1; }
	@sed -n -e 's/^.*figures: //p' -e '/^--- /p' dist/soak.txt

# One package at a time, or they would measure each other. The last line says
# how many times more stanzas a second we take in than mellium alone.
bench:
	@mkdir -p dist
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCH_TIME) -count $(BENCH_COUNT) -timeout 20m -p 1 \
		./component/... ./translator/... ./pusher/... ./backends/... >dist/bench.txt || { cat dist/bench.txt; exit 1; }
	@cat dist/bench.txt
	@awk '/^BenchmarkIngestRatio/ { \
		for (i = 2; i < NF; i++) ratio[$$(i + 1)] = $$i; \
		print "ingest: " ratio["x-wall"] " times mellium in stanzas a second, " ratio["x-cpu"] " times in CPU" }' dist/bench.txt

lint:
	@unformatted=$$(gofmt -l .) && if [ -n "$$unformatted" ]; then echo "gofmt -w is needed for:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet -tags soak ./...
	$(GO) tool staticcheck -tags soak ./...

vuln:
	$(GO) tool govulncheck $(if $(VULN_DB),-db '$(VULN_DB)') ./...

clean:
	rm -rf eventpusher dist
	rm -rf internal/harness/sns/node_modules internal/harness/sns/runtime internal/harness/axe/node_modules

-include image.mk
-include release.mk
