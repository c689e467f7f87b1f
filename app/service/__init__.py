"""The service: builds all parts, owns the order in which they start and stop, and tells of them as a whole."""
