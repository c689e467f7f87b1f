"""What renderers share that are clients of another server: calls with limits, waiting, taking the result over."""
