"""The renderer that fails on cue: real small videos, and every way in which renderers are known to break."""
