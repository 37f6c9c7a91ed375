"""A program that listens on a port, here one that shows all files of the machine:  curl URL/etc/hostname"""

import modal

app = modal.App("seed")


@app.function()
@modal.concurrent(max_inputs=100)
@modal.web_server(8000)
def my_server():
    import subprocess

    subprocess.Popen("python -m http.server -d / 8000", shell=True)
