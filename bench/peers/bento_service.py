"""An endpoint on BentoML, without an access log."""

import bentoml


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, traffic={"max_concurrency": 1000})
class Hello:
    """What is asked under load."""

    @bentoml.api
    async def hello(self) -> dict[str, str]:
        return {"message": "Hello world!"}
