.DEFAULT_GOAL := help
.PHONY: help setup object-store check test test-cluster test-faults test-schedule test-object-store test-containers fuzz demo demo-data image image-gpu up down \
	demo-cluster reference bench bench-vcf bench-plink bench-feed bench-train bench-predict bench-variants bench-gdc bench-cells wheel dist clean
SHELL := /bin/bash
RUN := . docker/env.sh &&
PYTEST := $(RUN) .venv/bin/python -m pytest -q
BUILD ?= docker build# or: buildah bud --format docker --layers
COMPOSE ?= docker compose

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 18

setup: ## install everything into .venv (a few minutes once, then nothing)
	@bash docker/setup.sh

object-store: setup ## what Spark needs for a lake on s3a:// (11 MB, once)
	@bash docker/s3.sh

check: setup ## lint, format, types, layers
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy genodl_spark jobs
	@.venv/bin/lint-imports --no-cache

test: check ## all checks, then the tests of one machine, in three processes, as each waits for its JVM and its disk
	@$(PYTEST) -n 3 --dist loadfile --no-loadscope-reorder --ignore=tests/cluster --ignore=tests/faults --ignore=tests/schedule --ignore=tests/object_store --ignore=tests/containers tests

goldens: setup ## ask plink2, bcftools and R with edgeR, limma, DESeq2, preprocessCore and sva (of apt-get) again what tests compare with, and say what has changed
	@rm -rf tests/golden/plink2 tests/golden/bcftools tests/golden/Rscript; export GENODL_GOLDENS=ask; \
	$(PYTEST) tests/genetics/qc tests/formats/vcf -k plink\ or\ alignment_as && \
	$(PYTEST) tests/learning/preprocessing tests/learning/biomarkers && \
	git status --short tests/golden

test-cluster: setup ## jobs sent by spark-submit to a master and two workers on this machine
	@$(PYTEST) tests/cluster

test-faults: setup ## jobs killed and started again, hosts lost, slow or without disk; a table of it in build/faults.md (long)
	@$(PYTEST) tests/faults

test-schedule: setup ## nights by cron and by a real Airflow, which it installs into .venv-airflow, on a standalone cluster
	@bash docker/airflow.sh
	@$(PYTEST) tests/schedule

test-object-store: object-store ## a lake on S3: two drivers that commit at once, and all verbs (needs minio on PATH or in GENODL_MINIO)
	@$(PYTEST) tests/object_store

test-containers: setup ## images built without an engine, by buildah on a Debian that mmdebstrap makes, and the services of compose.yaml in them (root; long)
	@$(PYTEST) tests/containers

fuzz: setup ## kernels.c under sanitizers: 1,000,000 mutated packed records, 20,000 of VCF text (long)
	@$(RUN) .venv/bin/python -m tests.fuzz

demo: demo-data ## two public cohorts, from files to predictions in SQL and a report, in demo/
	@$(RUN) .venv/bin/python -m jobs demo --inputs demo/inputs --output demo

demo-data: setup ## only the demo's input files, into demo/inputs
	@.venv/bin/python docker/demo_data.py

image: ## the image that verbs run in, genodl:cpu (BUILD="docker build")
	@$(BUILD) -f docker/Dockerfile --target cpu -t genodl:cpu .

image-gpu: ## the same with CUDA, and Horovod that talks by NCCL: genodl:gpu
	@$(BUILD) -f docker/Dockerfile --target gpu -t genodl:gpu .

up: ## a cluster in containers: Spark, S3 store, MLflow, Airflow, Thrift server (COMPOSE="docker compose")
	@docker/secrets.sh
	@$(COMPOSE) -f docker/compose.yaml up --detach --build --wait

down: ## stop it; its volumes stay
	@$(COMPOSE) -f docker/compose.yaml --profile demo down

demo-cluster: up ## the demo on that cluster, with the lake on its store
	@$(COMPOSE) -f docker/compose.yaml run --rm demo

reference: demo-data ## accuracy on real data beside published figures; every public data set by one command (long)
	@$(RUN) .venv/bin/python -m tests.reference.data_sets
	@$(RUN) .venv/bin/python tests/reference/run.py
	@$(RUN) .venv/bin/python -m tests.reference.attributions
	@$(RUN) .venv/bin/python -m tests.reference.cohorts
	@$(RUN) .venv/bin/python -m tests.reference.multi_omics
	@$(RUN) .venv/bin/python -m tests.reference.survival
	@$(RUN) .venv/bin/python -m tests.reference.methylation
	@$(RUN) .venv/bin/python -m tests.reference.noise
	@$(RUN) .venv/bin/python -m tests.reference.calibration
	@$(RUN) .venv/bin/python -m tests.reference.biomarkers
	@$(RUN) .venv/bin/python -m tests.reference.variants
	@$(RUN) .venv/bin/python tests/reference/sequence_networks.py

bench-vcf: setup ## cohort VCFs in and asked, beside plink2 and bcftools: time, memory, bytes (long)
	@$(RUN) .venv/bin/python tests/bench/vcf.py

bench-plink: setup ## a PLINK .bed in beside the VCF of the same cohort: CPU seconds
	@$(RUN) .venv/bin/python tests/bench/plink.py

bench-feed: setup ## the feed beside a bare pyarrow scan and Petastorm's own loaders, and its rows in shards
	@$(RUN) .venv/bin/python tests/bench/feed.py
	@$(RUN) .venv/bin/python tests/bench/shards.py

bench-train: setup ## the training loop beside a bare torch loop, two ranks beside two processes
	@$(RUN) .venv/bin/python tests/bench/train.py

bench-predict: setup ## batch inference beside a bare torch loop and pyspark's predict_batch_udf
	@$(RUN) .venv/bin/python tests/bench/predict.py

bench-variants: setup ## effects of a million variants through a network, beside a bare torch loop over their windows (long)
	@$(RUN) .venv/bin/python tests/bench/variants.py

bench-gdc: setup ## 5,000 files of gene counts in one job, beside a pandas loop: time, memory
	@$(RUN) .venv/bin/python tests/bench/gdc.py

bench-cells: setup ## a Cell Ranger matrix in: CPU seconds and bytes of a cell
	@$(RUN) .venv/bin/python tests/bench/cells.py

bench: bench-feed bench-train bench-predict bench-variants bench-plink bench-vcf ## all benchmarks

wheel: setup ## the wheel for spark-submit --py-files, into dist/
	@bash docker/wheel.sh

dist: setup ## wheel, Delta's jars and the Python of .venv, packed for nodes that have neither, into dist/ (GPU=1: with CUDA)
	@bash docker/wheel.sh
	@mkdir -p dist/jars && rm -f dist/jars/* && cp .venv/lib/python3.11/site-packages/pyspark/jars/delta-*.jar dist/jars/
	@ls dist/jars/*
	@.venv/bin/python docker/environment.py $(if $(GPU),gpu,cpu)

clean: ## remove .venv, build outputs and the demo's files
	rm -rf .venv .venv-airflow build dist demo *.egg-info
