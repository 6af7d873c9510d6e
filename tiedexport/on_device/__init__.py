"""Times of what a GPU does, by events on one stream, and of the host that enqueues it.

`cuda` is the clock, `contender` what takes its turn, and each file of `libraries` enqueues the work
of a library on the clock's stream.
"""
