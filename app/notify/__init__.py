"""Webhooks: notices leave the outbox here, and nowhere else."""
