"""One molecule at a time, by RDKit; most of it runs in the worker processes."""
