"""The domain: tasks, attempts, statuses, legal transitions and events. Pure: no I/O, no framework."""
