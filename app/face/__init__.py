"""Face analysis: detection, mesh, tracking, and a disk cache of results. Importing the package loads no torch."""
