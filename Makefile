.PHONY: check test bench docs

check:
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-logo

test:
	pytest

bench:
	mkdir -p out/bench
	pytest tests/benchmarks --override-ini addopts= -p no:xdist --benchmark-json out/bench/benchmarks.json
	python tests/benchmarks/table.py out/bench/benchmarks.json > out/bench/benchmarks.md
	cat out/bench/benchmarks.md

docs:
	python docs/build.py --out out/docs
