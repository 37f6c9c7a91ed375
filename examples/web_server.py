"""Any program that listens on a port, in any language, becomes an endpoint.

portico serve examples/web_server.py
curl http://$(id -un)--seed-my-server-dev.localhost:7777/etc/hostname
"""

import modal

app = modal.App("seed")


@app.function()
@modal.concurrent(max_inputs=100)
@modal.web_server(8000)
def my_server():
    import subprocess

    subprocess.Popen("python -m http.server -d / 8000", shell=True)
