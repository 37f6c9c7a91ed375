"""Variables from a secret that the server keeps, from the environment of who deploys, and from the code.

portico secret create database DATABASE_URL=-
"""

import modal

app = modal.App("secret-sources", secrets=[modal.Secret.from_name("database", required_keys=["DATABASE_URL"])])


@app.function(
    secrets=[modal.Secret.from_local_environ(["PATH"]), modal.Secret.from_dict({"GREETING": "hello"})],
    env={"GREETING": "hi"},  # the last one wins
)
@modal.fastapi_endpoint()
def show():
    import os

    host = os.environ["DATABASE_URL"].rpartition("@")[2]  # the rest of it is nobody's business
    return {"greeting": os.environ["GREETING"], "database": host, "path": bool(os.environ["PATH"])}
