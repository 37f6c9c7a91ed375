"""A Flask app, in threads:  curl --json '{"message": "Hello"}' URL/echo"""

import modal

app = modal.App("seed")


@app.function(image=modal.Image.debian_slim().pip_install("flask"))
@modal.concurrent(max_inputs=100)
@modal.wsgi_app()
def flask_app():
    from flask import Flask, request

    web_app = Flask(__name__)

    @web_app.post("/echo")
    def echo():
        return request.json

    return web_app
