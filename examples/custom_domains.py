"""One app for all shops: each has a name below a domain of yours, besides the app's own URL.

portico domain add '*.shops.example'
curl --connect-to ::127.0.0.1:7777 http://tea.shops.example/
"""

import modal

app = modal.App("custom-domains")


@app.cls()
class Shops:
    @modal.enter()
    def open(self):
        self.goods = {"tea.shops.example": ["green", "black"], "hats.shops.example": ["bowler"]}

    @modal.asgi_app(custom_domains=["*.shops.example"])
    def web(self):
        from fastapi import FastAPI, HTTPException, Request

        web_app = FastAPI()

        @web_app.get("/")
        async def goods(request: Request):
            if request.url.hostname not in self.goods:
                raise HTTPException(404, "No such shop")
            return self.goods[request.url.hostname]

        return web_app
