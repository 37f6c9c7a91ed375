"""The same app twice: each environment has its own URL and its own secrets.

portico environment create staging
portico deploy environments.py
portico deploy environments.py --env staging
"""

import modal

app = modal.App("environments")


@app.function()
@modal.fastapi_endpoint(label="where")
def where():
    import os

    return {"environment": os.environ["PORTICO_ENVIRONMENT"], "url": where.get_web_url()}
