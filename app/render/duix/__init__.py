"""The renderer whose work a Duix.Avatar (HeyGem) server does."""
