"""What computing needs whatever is computed: processes, threads, signals, files, caches."""
