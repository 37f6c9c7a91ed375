"""An endpoint on LitServe, with one worker: PORT."""

import sys

import litserve


class Hello(litserve.LitAPI):
    """What is asked under load."""

    def setup(self, device):
        pass

    async def decode_request(self, request):
        return request

    async def predict(self, request):
        return {"message": "Hello world!"}

    async def encode_response(self, output):
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Hello(enable_async=True), accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="error", generate_client_file=False, access_log=False)
