"""An endpoint that only those reach who have a proxy token; others start no container.

portico proxy-token create
curl -H "Modal-Key: wk-…" -H "Modal-Secret: ws-…" URL
"""

import modal

app = modal.App("proxy-auth")


@app.function()
@modal.fastapi_endpoint(requires_proxy_auth=True)
def members_only():
    return "hello, member"
