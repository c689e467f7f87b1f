"""How long work takes and waits, learned from work that is done. Pure: no clock, no store, no framework."""
