"""What changes under load: its version, and how many containers it has."""

import asyncio
import os

import modal
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

VERSION = 0
app = modal.App("bench-rollouts")


@app.function(max_containers=4)
@modal.concurrent(max_inputs=20)
@modal.asgi_app()
def web():
    site = FastAPI(openapi_url=None)

    @site.get("/")
    async def version():
        return VERSION

    @site.get("/stream")
    async def stream(gate: str):
        async def pieces():
            while not os.path.exists(gate):
                yield f"{VERSION};"
                await asyncio.sleep(0.02)

        return StreamingResponse(pieces())

    @site.websocket("/ws")
    async def ws(websocket: WebSocket):
        await websocket.accept()
        async for _ in websocket.iter_text():
            await websocket.send_text(str(VERSION))

    return site


@app.function(max_containers=6, scaledown_window=2)
@modal.fastapi_endpoint()
async def tide():
    await asyncio.sleep(0.01)
    return VERSION
