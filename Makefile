# The Felhom hub. `make run` is the way in; `make help` lists the rest.

export CGO_ENABLED = 0

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO_BUILD = go build -trimpath -buildvcs=false

# The slowest package decides; the whole takes much less than this for each.
TEST_TIMEOUT = 15m

.PHONY: help run build test check lint bench bench-ingest bench-sqlite prove torture engine clean

help: ## list the targets (default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build engine ## build, and try everything out: hub demo
	@bin/hub demo

build: ## bin/hub, static, and bin/hub-engine beside it
	@mkdir -p bin
	$(GO_BUILD) -ldflags '-s -w -X main.Version=$(VERSION)' -o bin/hub ./cmd/hub
	$(GO_BUILD) -ldflags '-s -w' -o bin/hub-engine ./cmd/hub-engine

# These load the machine on purpose: others that watch a clock run without them.
HEAVY = ./internal/bench ./internal/torture
# Begins first, so that nothing waits for it at the end.
LONGEST = ./internal/ship

test: engine ## every test, on the real engine
	go test -timeout $(TEST_TIMEOUT) $(LONGEST) $$(go list ./... | grep -vE '/internal/(bench|torture|ship)$$')
	go test -timeout $(TEST_TIMEOUT) -p 1 $(HEAVY)

check: lint ## the linters and the tests that need no engine and no patience
	go test -short -timeout 5m ./...

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l cmd internal); \
	if [ -n "$$unformatted" ]; then echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...

bench: engine ## every benchmark
	go test -run '^$$' -bench . -benchmem -timeout 30m ./...

bench-ingest: engine ## the way of a report, beside a bare handler: one table
	@bin/hub bench ingest

bench-sqlite: ## the hub beside one SQLite transaction a report, and the ratio
	cd internal/benchsqlite && go test -count=1 -v -run TestCompare .

prove: ## the dead-man's switch beside its model, over TRACES=100000 traces, and seven virtual days
	go test ./internal/deadman/proof -count=1 -timeout 90m -v -run 'TestP01|TestSevenDays' -rapid.checks=$(or $(TRACES),100000) -days=7 | grep -v '^=== '

torture: engine ## harm a real hub, and count what is lost: FAULT=kill-hub ROUNDS=200 SEED=1 FLOOR=1000
	$(GO_BUILD) -o bin/hub-torture ./cmd/hub-torture
	@bin/hub-torture $(if $(FAULT),-fault $(FAULT)) $(if $(ROUNDS),-rounds $(ROUNDS)) $(if $(SEED),-seed $(SEED)) $(if $(FLOOR),-floor $(FLOOR))

engine: build ## fetch the engine library into the cache, once
	@bin/hub engine fetch

clean: ## remove what was built and the demo; the fetched engine stays
	rm -rf bin demo
