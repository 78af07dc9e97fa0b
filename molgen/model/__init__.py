"""The decoder-only transformer: parts that take modules and numbers, and one builder that puts them together."""
