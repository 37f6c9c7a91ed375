"""Endpoints on Ray Serve: PORT, and how many more there are that have no replica until somebody asks."""

import logging
import signal
import sys

import ray
from fastapi import FastAPI
from ray import serve

COLD = {
    "min_replicas": 0,
    "initial_replicas": 0,
    "max_replicas": 1,
    "upscale_delay_s": 0,
    "downscale_delay_s": 3600,
    "downscale_to_zero_delay_s": 3600,
}

app = FastAPI()


@serve.deployment(num_replicas=1, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})
@serve.ingress(app)
class Hello:
    """What is asked under load."""

    @app.get("/")
    async def hello(self):
        return {"message": "Hello world!"}


def cold(number):
    """An endpoint that scales from zero."""
    small = FastAPI()

    @serve.deployment(name=f"Square{number}", autoscaling_config=COLD, ray_actor_options={"num_cpus": 0})
    @serve.ingress(small)
    class Square:
        @small.get("/")
        def square(self, x: int = 3):
            return {"square": x**2}

    return Square.bind()


def main(port, number):
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    quiet = {"log_level": "ERROR", "enable_access_log": False}
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config=quiet)
    for n in range(number):
        serve.run(cold(n), name=f"cold{n}", route_prefix=f"/cold{n}", logging_config=quiet)
    serve.run(Hello.bind(), name="hello", route_prefix="/", logging_config=quiet)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # Ray's own handler prints a trace
    signal.pause()


main(int(sys.argv[1]), int(sys.argv[2]))
