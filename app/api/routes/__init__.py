"""The routes, one small module per resource. Each `router(deps)` returns them bound to their dependencies."""
