"""Requests to the runtime's HTTP routes. Knows aiohttp and problem bodies; must not know routes."""

from __future__ import annotations

from typing import Any

import aiohttp

from mhnos_runtime.client.discovery import Target
from mhnos_runtime.client.errors import ConnectFailed, RequestFailed, Unauthorized

TIMEOUT_S = 30.0


async def ask(target: Target, method: str, path: str, body: object = None) -> Any:
    """The JSON of the answer, None where it has none. path: below the runtime's address, encoded.

    Raises ConnectFailed, Unauthorized, RequestFailed with the server's code and hint.
    """
    url = target.url.removesuffix("/") + path
    headers = {"Authorization": f"Bearer {target.token}"} if target.token else {}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout) as session,
            session.request(method, url, json=body, headers=headers, allow_redirects=False) as response,
        ):
            answer = await response.json() if response.content_type == "application/json" else None
            if response.status >= 300:
                raise _failed(target.url, response.status, answer)
            return answer
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError) as error:
        raise ConnectFailed(f"cannot ask {target.url}: {str(error) or type(error).__name__}") from error


def _failed(url: str, status: int, answer: object) -> RequestFailed | Unauthorized:
    if status == 401:
        return Unauthorized(
            f"{url} refused the token", hint="`mhnos-runtime token` on its machine shows the right one"
        )
    known = answer if isinstance(answer, dict) else {}
    text = known.get("error") or f"{url} answered HTTP {status}"
    code, hint = str(known.get("code", "internal")), str(known.get("hint", ""))
    return RequestFailed(str(text), code=code, hint=hint, retry=status in (429, 503))
