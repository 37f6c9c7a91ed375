"""The public door: HTTP/1.1 on both sides, bytes passed through as they come, nothing buffered whole.

One client connection (`client.py`) has exchanges (`exchange.py`), one after the other; an exchange asks an endpoint
for a lease and carries its request over a connection to that container (`upstream.py`).
"""
