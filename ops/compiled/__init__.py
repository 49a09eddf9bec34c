"""Modules that run as C: mypyc makes an extension of their Python, and a finder lets it take their place.

What runs for every record is compiled, and nothing else (decision 0024). The source is the same and runs as it is where
nothing was compiled, where it has changed since, or with PAYMENTS_COMPILED=0.
"""
