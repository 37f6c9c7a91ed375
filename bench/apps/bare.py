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
sync = application()


@cold.get("/")
def square(x: int = 3):
    return {"square": x**2}


@warm.get("/")
async def hello():
    return {"message": "Hello world!"}


@sync.get("/")
def hello_sync():
    return {"message": "Hello world!"}
