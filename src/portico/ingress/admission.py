"""What a request has to pass before it may ask for a container: proxy auth, rate limit, size; in this order.

A step is a function of the request's head and the time, and answers with a refusal or with nothing. It touches
nothing but its table in memory, so that a refusal costs no container, and passing costs no more than a look.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

from portico.core.bucket import TokenBucket
from portico.core.tokens import ProxyToken, ProxyTokens, Verdict
from portico.ingress import pages
from portico.ingress.head import RequestHead
from portico.ingress.ports import Endpoint, Refusal, Route, Step
from portico.model.policy import Policies, Scope

_OWN: Final = b"bearer wk-"
NewBucket = Callable[[str, float, float], TokenBucket]


class Admission:
    """The tables behind the steps, and the steps of each endpoint.

    rate_limit: the workspace's, in requests a second, where none is set; None: no limit. redirect_after: see `Route`.
    wall: seconds since the epoch. new_bucket: makes one, of a name, with a rate, now; None: one that nobody shares.
    """

    def __init__(
        self,
        rate_limit: float | None,
        *,
        now: Callable[[], float],
        redirect_after: float | None = None,
        wall: Callable[[], float] = time.time,
        on_token_use: Callable[[], None] = lambda: None,
        new_bucket: NewBucket | None = None,
    ) -> None:
        self.tokens = ProxyTokens(on_token_use)
        self._new_bucket = new_bucket or (lambda name, rate, now: TokenBucket(rate, now))
        self._rate_limit = rate_limit
        self._redirect_after = redirect_after
        self._now = now
        self._wall = wall
        self._policies = Policies()
        self._buckets: dict[Scope, TokenBucket] = {}

    def set_policies(self, policies: Policies) -> None:
        """They hold for routes that are made from now on."""
        self._policies = policies

    def put_token(self, token: ProxyToken, rate_limit: float | None) -> None:
        """It is valid from now on; `rate_limit` is its own, in requests a second."""
        if rate_limit is not None:
            token.bucket = self._new_bucket(f"token {token.id}", rate_limit, self._now())
        self.tokens.put(token)

    def route(self, endpoint: Endpoint, place: Scope, *, protected: bool) -> Route:
        """The way to this endpoint. protected: its code asks for proxy auth."""
        steps: list[Step] = []
        if protected or self._policies.requires_proxy_auth(place):
            steps.append(ProxyAuth(self.tokens, place, self._wall))
        rates = self._policies.rates(place, self._rate_limit)
        if rates or steps:  # a token may have a limit of its own
            steps.append(RateLimit([self._bucket(scope, rate) for scope, rate in rates.items()]))
        max_body = self._policies.max_body(place)
        steps.append(MaxBody(max_body))
        return Route(endpoint, tuple(steps), max_body, self._redirect_after)

    def _bucket(self, scope: Scope, rate: float) -> TokenBucket:
        bucket = self._buckets.get(scope)
        if bucket is None:
            bucket = self._buckets[scope] = self._new_bucket(f"scope {scope!r}", rate, self._now())
        elif bucket.rate != rate:
            bucket.change(rate)
        return bucket


class ProxyAuth:
    """Lets those pass that have a token for this endpoint, and browsers that ask whether they may ask."""

    def __init__(self, tokens: ProxyTokens, endpoint: Scope, wall: Callable[[], float]) -> None:
        self._tokens = tokens
        self._endpoint = endpoint
        self._wall = wall

    def __call__(self, head: RequestHead, now: float) -> Refusal | None:
        if head.method == b"OPTIONS" and head.is_preflight:
            return None
        if head.key is None or head.secret is None:
            tried = (head.find(b"authorization") or b"").lower().startswith(_OWN)
            return pages.INVALID_CREDENTIALS if tried else pages.NO_CREDENTIALS
        verdict, token = self._tokens.check(head.key, head.secret, self._endpoint, self._wall())
        if verdict is Verdict.INVALID:
            return pages.INVALID_CREDENTIALS
        if verdict is Verdict.ELSEWHERE:
            return pages.FOREIGN_CREDENTIALS
        head.bucket = token.bucket
        return None


class RateLimit:
    """Lets as many pass as each of its buckets has tokens for, and that of the request's proxy token."""

    def __init__(self, buckets: Sequence[TokenBucket]) -> None:
        self._buckets = tuple(buckets)

    def __call__(self, head: RequestHead, now: float) -> Refusal | None:
        buckets = self._buckets if head.bucket is None else (*self._buckets, head.bucket)
        for place, bucket in enumerate(buckets):
            if not bucket.has_one(now):
                for before in buckets[:place]:
                    before.put_back()
                return _too_many(bucket)
        for bucket in buckets:
            bucket.take()
        return None


class MaxBody:
    """Refuses a body that is too large by what its head says; what has no length is counted as it comes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._refusal = pages.too_large(limit)

    def __call__(self, head: RequestHead, now: float) -> Refusal | None:
        if head.content_length is None or head.content_length <= self._limit:
            return None
        return self._refusal


def _too_many(bucket: TokenBucket) -> Refusal:
    wait = max(1, math.ceil(bucket.wait()))
    lines = b"ratelimit-limit: %d\r\nratelimit-remaining: 0\r\nratelimit-reset: %d\r\n" % (max(1, bucket.rate), wait)
    return Refusal(
        429,
        f"modal-http: rate limit exceeded: {bucket.rate:g} requests a second",
        retry_after=wait,
        code="exhausted",
        lines=lines,
    )
