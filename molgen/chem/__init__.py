"""Chemistry of single molecules with RDKit; most of it runs in the worker processes."""
