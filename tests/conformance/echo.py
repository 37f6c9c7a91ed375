"""An echo server behind each decorator that has WebSockets; `/name` says which container it is."""

import os
import subprocess
import sys

import modal

image = modal.Image.debian_slim().pip_install("fastapi", "wsproto", "websockets>=15")
app = modal.App("echo", image=image)


@app.function(min_containers=1, max_containers=1)
@modal.concurrent(max_inputs=20)
@modal.asgi_app()
def asgi():
    from fastapi import FastAPI, WebSocket

    web_app = FastAPI()

    @web_app.get("/name")
    def name():
        return os.environ["PORTICO_TASK_ID"]

    @web_app.websocket("/")
    async def echo(ws: WebSocket):
        await ws.accept()
        while (message := await ws.receive())["type"] == "websocket.receive":
            await ws.send(message | {"type": "websocket.send"})

    return web_app


@app.function(min_containers=1, max_containers=1)
@modal.concurrent(max_inputs=20)
@modal.wsgi_app()
def wsgi():
    from wsproto import ConnectionType, WSConnection, events
    from wsproto.extensions import PerMessageDeflate
    from wsproto.utilities import RemoteProtocolError

    def name(environ, start_response):
        start_response("200 OK", [])
        return [os.environ["PORTICO_TASK_ID"].encode()]

    def answers(event, begun):
        if isinstance(event, events.Request):
            yield events.AcceptConnection(extensions=[PerMessageDeflate()])
        elif isinstance(event, events.Message):
            begun.append(event.data)
            if event.message_finished:
                yield type(event)(data=type(event.data)().join(begun))
                begun.clear()
        elif isinstance(event, (events.Ping, events.CloseConnection)):
            yield event.response()

    def web_app(environ, start_response):
        connection = environ.get("werkzeug.socket")
        if connection is None:
            return name(environ, start_response)
        ws, begun = WSConnection(ConnectionType.SERVER), []
        headers = [(key[5:].replace("_", "-"), value) for key, value in environ.items() if key.startswith("HTTP_")]
        ws.initiate_upgrade_connection([(key.encode(), value.encode()) for key, value in headers], "/")
        over = False
        while not over:
            try:
                for event in ws.events():
                    for answer in answers(event, begun):
                        connection.sendall(ws.send(answer))
                    over = over or isinstance(event, events.CloseConnection)
            except RemoteProtocolError as error:
                connection.sendall(ws.send(error.event_hint))
                break
            if not over:
                ws.receive_data(connection.recv(65536) or None)
        start_response("200 OK", [])
        return []

    return web_app


PROGRAM = """
import asyncio, os
from websockets.asyncio.server import serve

def answer(connection, request):
    if request.path == "/name":
        return connection.respond(200, os.environ["PORTICO_TASK_ID"])

async def echo(ws):
    async for message in ws:
        await ws.send(message)

async def main():
    async with serve(echo, "0.0.0.0", 8000, max_size=None, process_request=answer) as server:
        await server.serve_forever()

asyncio.run(main())
"""


@app.function(min_containers=1, max_containers=1)
@modal.concurrent(max_inputs=20)
@modal.web_server(8000, startup_timeout=30)
def program():
    subprocess.Popen([sys.executable, "-c", PROGRAM])
