"""What a soak asks for: quick requests, slow ones, streams, uploads, WebSockets and calls."""

import asyncio

import modal
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse

app = modal.App("bench-soak")
VERSION = 0


@app.function(max_containers=2, retries=5)
@modal.concurrent(max_inputs=100)
async def double(x: int) -> int:
    return 2 * x


@app.function(min_containers=2, max_containers=3)
@modal.concurrent(max_inputs=200)
@modal.asgi_app()
def web():
    site = FastAPI(openapi_url=None)

    @site.get("/quick")
    async def quick():
        return "quick"

    @site.get("/slow")
    async def slow():
        await asyncio.sleep(0.3)
        return "slow"

    @site.get("/stream")
    async def stream():
        async def pieces():
            for _ in range(20):
                yield b"piece;"
                await asyncio.sleep(0.01)

        return StreamingResponse(pieces())

    @site.post("/upload")
    async def upload(request: Request):
        return sum([len(part) async for part in request.stream()])

    @site.get("/call")
    async def call():
        return await double.remote.aio(21)

    @site.websocket("/echo")
    async def echo(websocket: WebSocket):
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    return site
