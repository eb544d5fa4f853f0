# What a person types. Everything else is behind these.
#
#   make demo    build, and run the bookshop behind a Weir of one process
#   make test    all tests (add SHORT=1 for the quick ones)
#   make scenarios FOR=10m   clusters of real processes that much is done to
#                (SEED=7 begins with that seed; ARGS="-run Power" runs some)
#   make soak FOR=5m   an edge under load, with upstreams and clients that fail in
#                every way, and nothing left behind (SEED=7)
#   make garden  other people's servers behind an edge (installs them by apt)
#   make websocket   other people's WebSocket, client and server, through an edge
#                (installs them by apt and npm; SEED=7 is another order)
#   make plugins-foreign   the plugin that is written in other people's languages,
#                with their compilers and SDKs, built and run (installs them by apt
#                and npm)
#   make bench   what a request costs, beside nginx, HAProxy, Caddy and Traefik
#                (make bench-peers installs them; ARGS="-rounds 3 -only weir,nginx")
#   make bench-sandbox  modules exchanged under load, and what a plugin that goes
#                wrong costs another tenant (ARGS="-swaps 10000")
#   make bench-raft  how many writes a second a cluster agrees on, beside etcd

GO      ?= go
BIN     := $(CURDIR)/bin
TOOLS   := $(CURDIR)/.bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X main.version=$(VERSION)
PLUGINS := $(patsubst examples/plugins/%/main.go,%,$(wildcard examples/plugins/*/main.go))
# Runs its argument in each of the Go modules beside the root's.
each = @for m in plugins-sdk $(PLUGINS:%=examples/plugins/%); do (cd $$m && $(1)) || exit 1; done

.PHONY: demo build plugins plugins-foreign test race scenarios garden websocket soak check vet h2spec conformance bench bench-raft bench-sandbox bench-peers generate generate-check tools clean

demo: build
	$(BIN)/weir dev --demo

build: plugins
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/weir ./cmd/weir

# The standard policies, in one module, built by stock Go with the public SDK and embedded;
# and any plugin beside them.
plugins:
	@for p in $(PLUGINS); do \
	  (cd examples/plugins/$$p && GOOS=wasip1 GOARCH=wasm $(GO) build -buildmode=c-shared -trimpath -ldflags='-s -w' \
	    -o $(CURDIR)/examples/plugins/wasm/$$p.wasm .) || exit 1; \
	done

test: plugins
	$(GO) test -timeout 15m ./...
	$(call each,$(GO) test ./...)

race: plugins
	$(GO) test -race -timeout 20m ./...

scenarios: build
	WEIR_BIN=$(BIN)/weir GO=$(GO) FOR=$(FOR) SEED=$(SEED) test/cluster/scenarios.sh $(ARGS)

soak:
	$(GO) test -count=1 -v -timeout 0 ./test/soak -for $(or $(FOR),5m) -seed $(or $(SEED),1)

garden:
	test/garden/plant.sh
	$(GO) test -count=1 -v ./test/garden

websocket:
	test/websocket/peers.sh
	$(GO) test -count=1 -timeout 30m ./test/websocket -whole -seed $(or $(SEED),1)

plugins-foreign:
	examples/plugins-foreign/toolchains.sh
	@mkdir -p $(BIN)/plugins
	@for l in c rust assemblyscript; do \
	  examples/plugins-foreign/build.sh $$l $(BIN)/plugins/usher-$$l.wasm || exit 1; \
	done
	$(GO) test -count=1 ./test/foreign

check: tools generate-check vet race
	$(call each,$(GO) vet ./... && $(TOOLS)/staticcheck ./... && $(GO) test -race ./...)

vet:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt these:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(TOOLS)/staticcheck ./...

# What the HTTP/2 side makes of h2spec's 145 cases, by TLS and in the clear.
h2spec: tools
	$(GO) test -count=1 -run TestH2Spec -v ./proxy

# The Connect project's suite with an edge between its client and its server:
# Connect, gRPC and gRPC-Web, HTTP/1.1 and HTTP/2, some 10,700 cases in two
# minutes. CONFORMANCE_RUN='**/unary/**' runs some of them.
CONFORMANCE := v1.0.7
conformance:
	@GOBIN=$(TOOLS) $(GO) install connectrpc.com/conformance/cmd/connectconformance@$(CONFORMANCE)
	@GOBIN=$(TOOLS) $(GO) install connectrpc.com/conformance/cmd/referenceserver@$(CONFORMANCE)
	CONFORMANCE_RUN="$${CONFORMANCE_RUN:-**}" $(GO) test -count=1 -run TestConnectConformance -v ./proxy

bench: build
	$(GO) run ./bench $(ARGS)

bench-raft: build
	$(GO) run ./bench/raft $(ARGS)

bench-sandbox: build
	$(GO) run ./bench/sandbox $(ARGS)

bench-peers:
	TOOLS=$(TOOLS) GO=$(GO) bench/peers.sh

tools:
	@cd tools && GOBIN=$(TOOLS) $(GO) install tool
	@GOBIN=$(TOOLS) $(GO) install tool

generate: tools
	PATH=$(TOOLS):$$PATH buf lint
	PATH=$(TOOLS):$$PATH buf generate
	$(GO) generate ./policy/scaffold

generate-check: generate
	@git diff --exit-code -- proto policy/scaffold || { echo "generated code is stale: run make generate and commit"; exit 1; }

clean:
	rm -rf $(BIN) examples/plugins/wasm/*.wasm
