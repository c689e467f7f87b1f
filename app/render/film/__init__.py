"""What renderers share that draw a face into every frame themselves: footage, where its face is, and the film of it."""
