"""A web app for bare uvicorn, for the one behind nginx, and for a function: one and the same."""

import asyncio

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

CHUNK = 256 * 1024


def application() -> FastAPI:
    """WebSockets that echo, streams, bodies of any size in both directions."""
    app = FastAPI(openapi_url=None)
    chunk = b"x" * CHUNK

    @app.websocket("/echo")
    async def echo(websocket: WebSocket):
        await websocket.accept()
        try:
            while True:
                await websocket.send_bytes(await websocket.receive_bytes())
        except WebSocketDisconnect:
            pass

    go_on = asyncio.Event()

    @app.get("/stream")
    async def stream():
        async def chunks():
            yield b"first"
            await go_on.wait()
            go_on.clear()
            yield b"second"

        return StreamingResponse(chunks())

    @app.get("/go-on")
    async def release():
        go_on.set()

    @app.get("/download")
    async def download(size: int, sized: bool = True):
        async def chunks():
            for _ in range(size // CHUNK):
                yield chunk

        return StreamingResponse(chunks(), headers={"content-length": str(size)} if sized else {})

    @app.post("/upload")
    async def upload(request: Request):
        size = 0
        async for part in request.stream():
            size += len(part)
        return size

    @app.get("/")
    async def ready():
        return "ready"

    return app
