"""Addresses of other servers, for callers written for those: see docs/drop-in.md."""
