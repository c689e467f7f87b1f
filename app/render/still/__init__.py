"""Renderer `still`: the source with the speech, without lip motion. The last resort of a chain of tiers."""
