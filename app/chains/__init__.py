"""Chains: tasks that wait for others are let go once these have succeeded, with their results as inputs."""
