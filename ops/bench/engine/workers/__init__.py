"""The contenders' processes: each does the same work with another engine and is driven by one JSON file."""
