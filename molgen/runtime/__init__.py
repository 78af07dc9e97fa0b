"""Infrastructure without chemistry: devices, processes, threads, signals, files, caches and messages."""
