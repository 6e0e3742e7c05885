"""The side-by-side measurement behind `make bench`: models, peers, the runner and its report."""
