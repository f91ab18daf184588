# The targets of meshaccel. `./run TARGET` first installs what they need; `make TARGET` expects it there.

PYTHON := .venv/bin/python
# Words after the target: ./run test-unit -k planner, ./run bench sockops-pingpong --pairs 3.
ARGS ?=

# Named, because Ansible ignores the ansible.cfg of a world-writable folder.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PATH := $(CURDIR)/.venv/bin:$(PATH)

WITH_PACKAGE := PYTHONPATH=$(CURDIR)/module_utils
PYTEST := $(PYTHON) -m pytest
NODE_RELEASE := build/node_release.json
VAGRANTFILES := Vagrantfile tests/vagrant/box_files/Vagrantfile
C_SOURCES = $(shell find bpf tests -name '*.[ch]')

.PHONY: help demo test test-unit test-kernel test-peers
.PHONY: test-vm test-vm-guests test-vm-kernel test-vm-ipvs test-vm-roles
.PHONY: test-vagrant vm-image vagrant-box kernels bench bench-loaders instructions root bpf node-release clean
.PHONY: lock format lint lint-ansible lint-yaml lint-python lint-types lint-shell lint-c lint-ruby

help: ## list the targets
	@./run help

demo: root bpf node-release ## measure a real mesh on this machine, accelerate it, measure again, take it all back
	$(WITH_PACKAGE) $(PYTHON) -m tests.demo $(ARGS)

VM_PARTS := vm-image test-vm-guests test-vm-kernel test-vm-ipvs test-vm-roles
# Guests are made of Debian's packages: apt knows their archive on Debian, elsewhere somebody has to name it.
HAS_ARCHIVE := $(or $(MESHACCEL_MIRROR),$(shell . /etc/os-release; [ "$$ID" != debian ] || echo yes))

test: ## every check and test there is on this machine, and in virtual machines with one kernel
	@.ci/timed lint test-unit test-kernel test-peers $(if $(HAS_ARCHIVE),$(VM_PARTS))
	@[ -n '$(HAS_ARCHIVE)' ] || echo 'NOT RUN: the parts in virtual machines. Set MESHACCEL_MIRROR to an archive of Debian.'

test-unit: bpf ## the tests that need no root
	$(PYTEST) tests/unit $(ARGS)

test-kernel: root bpf node-release ## the accelerators on the running kernel, in network namespaces
	$(PYTEST) tests/kernel $(ARGS)

test-peers: root bpf node-release ## the accelerators under real programs: Envoy, nginx, Redis
	$(PYTEST) tests/peers $(ARGS)

# The kernels that test-vm takes: a name, more of them, or `all`.
MATRIX ?= 6.1
KERNELS = $(if $(filter all,$(MATRIX)),$(shell $(PYTHON) -m tests.vm kernels),$(MATRIX))

vm-image: root ## build images of virtual machines, by default that of the first kernel: ./run vm-image 6.1 6.12
	$(PYTHON) -m tests.vm image $(or $(ARGS),$(KERNELS))

kernels: root bpf ## write docs/kernels.md: what each kernel answers, and how the core of tests/kernel goes there
	$(WITH_PACKAGE) $(PYTHON) -m tests.vm.kernels $(ARGS)

test-vm: ## all parts of test in virtual machines; MATRIX=all: on every kernel
	@.ci/timed $(VM_PARTS)

test-vm-guests: root ## the virtual machines themselves
	$(PYTEST) tests/vm $(ARGS)

test-vm-kernel: root bpf ## the core of tests/kernel on other kernels, or the tests that ARGS name
	for kernel in $(KERNELS); do \
		$(WITH_PACKAGE) $(PYTHON) -m tests.vm.guest_tests kernel $$kernel $(ARGS) || exit; done

test-vm-ipvs: root bpf ## tests/ipvs, which needs a kernel with IPVS, or the tests that ARGS name
	for kernel in $(KERNELS); do \
		$(WITH_PACKAGE) $(PYTHON) -m tests.vm.guest_tests ipvs $$kernel $(ARGS) || exit; done

SCENARIOS ?= sockops three_nodes ipvs_bpf

test-vm-roles: root node-release ## whole roles on nodes with other kernels, through a reboot; SCENARIOS="sockops"
	for kernel in $(KERNELS); do for scenario in $(SCENARIOS); do \
		MESHACCEL_KERNEL=$$kernel molecule test --scenario-name $$scenario $(ARGS) || exit; done; done
# It has a kernel of its own, and compiling takes minutes under emulation.
	$(if $(filter all,$(MATRIX)),molecule test --scenario-name sockops_bcc $(ARGS))

vagrant-box: root ## make boxes for vagrant-libvirt: ./run vagrant-box 6.1 6.12; by default of the first kernel
	$(PYTHON) -m tests.vagrant box $(ARGS)

test-vagrant: export MESHACCEL_MACHINES = vagrant
test-vagrant: root node-release ## the Vagrantfile, and a scenario on it, by default sockops; MATRIX as for test-vm
	$(PYTEST) -o faulthandler_timeout=0 tests/vagrant
	for kernel in $(KERNELS); do MESHACCEL_KERNEL=$$kernel $(PYTHON) -m tests.vagrant with-libvirt \
		molecule test $(or $(ARGS),--scenario-name sockops) || exit; done

bench: root bpf node-release ## the benchmarks named in ARGS, or all; results in build/bench/
	$(WITH_PACKAGE) tests/bench/run $(ARGS)

instructions: root bpf ## count the instructions that loads take, in a virtual machine; ARGS as for bench
	tests/bench/instructions $(ARGS)

bench-loaders: root node-release ## seconds and memory of sockops_loader libbpf and bcc, in a virtual machine
	$(WITH_PACKAGE) $(PYTHON) -m tests.bench.loaders $(ARGS)

root:
	@[ "$$(id -u)" = 0 ] || { echo 'root is needed: network namespaces, cgroups and BPF programs are made' >&2; exit 1; }

bpf: ## compile the BPF programs to build/bpf/
	@$(MAKE) --no-print-directory -C bpf

node-release: bpf ## pack what a node gets into build/node_release.json
	$(WITH_PACKAGE) $(PYTHON) -m meshaccel.release_archive build --bpf-directory build/bpf --output $(NODE_RELEASE)

lint: lint-ansible lint-yaml lint-python lint-types lint-shell lint-c lint-ruby ## every static check

lint-ansible:
	ansible-lint -q

lint-yaml:
	yamllint --strict .

lint-python:
	ruff check .
	ruff format --check .

# The node's code against Python 3.9, the controller's against the oldest Python the lock is for.
lint-types:
	mypy $(wildcard module_utils library)
	mypy --python-version 3.11 tests

lint-shell:
	shellcheck $(shell grep -rIlE '^\#!.*\<(ba)?sh$$' --exclude-dir=.git --exclude-dir=.venv --exclude-dir=build .)

lint-c:
	clang-format --dry-run -Werror $(C_SOURCES)

# Ruby comes with Vagrant, which is not needed for anything else.
lint-ruby:
	@command -v ruby >/dev/null || { echo 'no ruby here: Vagrantfiles are not checked'; exit 0; }; \
		for file in $(VAGRANTFILES); do ruby -wc $$file >/dev/null || exit; done

format: ## lay out Python and C as lint wants it
	ruff format .
	clang-format -i $(C_SOURCES)

clean: ## remove everything that was built, the virtual environment too
	rm -rf build .venv

# uv, because its lock holds for every Python version at once.
lock: ## write requirements.lock anew from the pins in pyproject.toml
	python3 -m venv build/lock
	build/lock/bin/pip install --quiet uv==0.13.8
	build/lock/bin/uv pip compile --system-certs --universal --python-version 3.11 --generate-hashes \
		--group test --group lint --custom-compile-command 'make lock' --quiet \
		--output-file requirements.lock pyproject.toml
