"""`greenroom drill`: failures on purpose, on this machine and with this configuration, and whether all promises hold.

A drill is a caller and an operator: it sees the service from outside, over HTTP and as processes and files. What ought
to happen it takes from the failure table and the settings, never from what it observes.
"""
