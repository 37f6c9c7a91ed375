"""An ASGI application without a framework."""

HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"26")]


async def application(scope, receive, send):
    """The same answer to every request."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b'{"message":"Hello world!"}'})
