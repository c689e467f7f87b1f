"""Renderer `command`: any program, started by an argv template, never by a shell."""
