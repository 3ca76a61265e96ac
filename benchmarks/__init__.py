"""Speed and memory against peers, measured in one run. `python -m benchmarks.<name> --help`; results: RESULTS.md."""
