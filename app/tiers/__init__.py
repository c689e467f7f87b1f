"""Tiers: the renderers of this service as they are configured, and which of them may serve a task."""
