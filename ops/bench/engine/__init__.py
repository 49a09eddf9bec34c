"""The engine's benchmark: one workload, one broker, several contenders; every run is verified."""
