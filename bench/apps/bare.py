"""The same endpoints as plain FastAPI applications, for bare uvicorn."""

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware


def application() -> FastAPI:
    """FastAPI as an endpoint of Portico gets it."""
    made = FastAPI(openapi_url=None)
    made.add_middleware(
        CORSMiddleware, allow_origins=["*"], allow_credentials=True, allow_methods=["*"], allow_headers=["*"]
    )
    return made


cold = application()
warm = application()


@cold.get("/")
def square(x: int = 3):
    return {"square": x**2}


@warm.get("/")
async def hello():
    return {"message": "Hello world!"}


coroutine = FastAPI(openapi_url=None)
plain = FastAPI(openapi_url=None)


@coroutine.get("/")
async def greet():
    return {"message": "Hello world!"}


@plain.get("/")
def function():
    return {"message": "Hello world!"}


async def asgi(scope, receive, send):
    """No framework."""
    assert scope["type"] == "http", "this app knows nothing else"
    headers = [(b"content-length", b"12"), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello world!"})
