"""Groups: arrays, sweeps, chains, job groups and graphs of tasks."""
