"""The same small answer three ways, for bare uvicorn: an async function, a plain one, and a bare ASGI app."""

from fastapi import FastAPI

coroutine = FastAPI(openapi_url=None)
plain = FastAPI(openapi_url=None)


@coroutine.get("/")
async def greet():
    return {"message": "Hello world!"}


@plain.get("/")
def greet_plainly():
    return {"message": "Hello world!"}


async def asgi(scope, receive, send):
    """No framework."""
    assert scope["type"] == "http", "this app knows nothing else"
    headers = [(b"content-length", b"12"), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello world!"})
