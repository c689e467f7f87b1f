"""The HTTP layer: routes, models and problem details over a few ports; it never touches a process."""
