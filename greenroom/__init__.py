"""Greenroom for Python programs: `greenroom.client` speaks to a running service."""
