"""The usual kinds of responses, for programs that judge HTTP: of an app, and of a program that serves files.

`/name` says which container it is.
"""

import os

import modal

app = modal.App("site", image=modal.Image.debian_slim().pip_install("fastapi"))
TEXT = "All work and no play makes Jack a dull boy. " * 100


@app.function(max_containers=1)
@modal.concurrent(max_inputs=20)
@modal.asgi_app()
def pages():
    import tempfile
    from pathlib import Path

    from fastapi import FastAPI, Response
    from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse
    from starlette.middleware.gzip import GZipMiddleware

    web_app = FastAPI()
    web_app.add_middleware(GZipMiddleware, minimum_size=100)
    file = Path(tempfile.mkdtemp()) / "file.txt"
    file.write_text(TEXT)

    @web_app.get("/name")
    def name():
        return os.environ["PORTICO_TASK_ID"]

    @web_app.get("/json")
    def json():
        return {"text": "hello"}

    @web_app.api_route("/file", methods=["GET", "HEAD"])
    def download():
        return FileResponse(file, media_type="text/plain")

    @web_app.get("/stream")
    def stream():
        return StreamingResponse(iter([TEXT] * 3), media_type="text/plain")

    @web_app.get("/moved")
    def moved():
        return RedirectResponse("/json")

    @web_app.get("/nothing", status_code=204)
    def nothing():
        return Response(status_code=204)

    @web_app.get("/cookie")
    def cookie(response: Response):
        response.set_cookie("a", "b", secure=True, httponly=True, samesite="lax")
        return "hello"

    return web_app


@app.function(max_containers=1)
@modal.concurrent(max_inputs=20)
@modal.web_server(8000)
def files():
    import subprocess
    import sys
    import tempfile
    from pathlib import Path

    folder = Path(tempfile.mkdtemp())
    (folder / "file.txt").write_text(TEXT)
    (folder / "name").write_text(os.environ["PORTICO_TASK_ID"])
    subprocess.Popen([sys.executable, "-m", "http.server", "8000", "--directory", str(folder)])
