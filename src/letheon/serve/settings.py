"""What the server allows: sizes, times, rates and who may come in."""

from __future__ import annotations

import ipaddress

from pydantic import SecretStr

from letheon.core.settings import Field, Settings


class ServeSettings(Settings):
    """Limits of the server. Times are in seconds, sizes in bytes unless they say tokens."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="0: any free one")
    allowed_hosts: tuple[str, ...] = Field((), description="names, beside the address, that a request may call this server by")
    token: SecretStr | None = Field(None, description="opens the ledger; none: there is no admin interface")
    api_keys: tuple[SecretStr, ...] = Field((), description="keys that open /v1; none: everybody who reaches the port")
    batch: int = Field(32, ge=1, description="answers that are written at the same time")
    queue: int = Field(64, ge=1, description="answers that may wait; more are refused with 503")
    cache_tokens: int = Field(65536, ge=1, description="keys and values held at once, in tokens; one answer always has room")
    max_new_tokens: int = Field(1024, ge=1, description="longest answer, in tokens")
    max_answers: int = Field(32, ge=1, description="prompts times `n` of one request")
    max_messages: int = Field(256, ge=1, description="messages of one conversation")
    max_body: int = Field(1 << 20, ge=1, description="bytes of one request")
    request_seconds: float = Field(120, gt=0, description="an answer is cut after that; one that has not begun by then is refused with 503")
    header_seconds: float = Field(10, gt=0, description="a connection that has not sent its headers by then is closed with 408")
    body_seconds: float = Field(20, gt=0, description="a request whose body has not come by then is answered with 408")
    write_seconds: float = Field(30, gt=0, description="a client that has not taken what was sent for so long is cut off")
    grace_seconds: float = Field(30, gt=0, description="answers that are running get this long when the server ends")
    connections: int = Field(256, ge=1, description="open connections; more are closed")
    rate: float = Field(600, gt=0, description="requests a minute from one client; more get 429")
    per_client: int = Field(32, ge=1, description="requests of one client that may run at the same time; more get 429")
    poll_seconds: float = Field(2, gt=0, description="how often the desk is asked for a new generation")
    access_log: bool = Field(False, description="one line a request: method, path, status and time, never what was said")

    @property
    def loopback(self) -> bool:
        """Whether only this computer can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False
