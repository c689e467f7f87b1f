"""Measurements of quality: what the tests cannot say in a yes or a no. Not part of the service."""
