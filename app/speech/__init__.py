"""Speech to articulation: what the lips and jaw do, a hundred times a second (see `articulation`)."""
