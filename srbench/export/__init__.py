"""What ships: a method and a network as one graph in a file, and the runtimes that run it.

`session` needs neither torch nor the rest of srbench's networks, so that a service can use it.
"""
