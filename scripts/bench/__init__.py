"""The parts of `make bench`; scripts/benchmark.py puts them together."""
