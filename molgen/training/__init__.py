"""A training: its start, its loop, its optimisers, what it leaves."""
