"""
The few changes mitmproxy needs before a credential may pass through it.

Every private name of mitmproxy that this program touches is touched here and nowhere else. Each patch names the defect
it mends and has a test in `tests/e2e/test_hardening.py` which shows that defect in plain mitmproxy, so that it fails
once the patch is no longer needed. All of them concern mitmproxy 12.2.3 and 12.3.1.

    P1  replies     a refusal is sent at once; plain mitmproxy first takes in the whole body
    P2  connection  every socket is closed; plain mitmproxy leaks one when a connection is dropped in mid-body
    P3  http1       HTTP/1 trailers are dropped; plain mitmproxy crashes and the client hangs
    P4  http1       interim responses (1xx) are skipped; plain mitmproxy takes the first for the final one
    P5  http1       every HTTP/1 request body is framed; plain mitmproxy sends h2 bodies bare: request smuggling
    P6  http1       a head of more than 64 KiB is refused; plain mitmproxy reads on until memory is full
    P7  replies     responses made by the proxy are ours; plain mitmproxy tells exception texts, hosts and its version
    P8  dispatch    hooks fail closed and a request needs a verdict; plain mitmproxy logs the exception and forwards
    P9  certstore   many hosts are cheap; plain mitmproxy spends 1 ms per connection above 100 hosts
    P10 holding     a held body has a limit; plain mitmproxy collects one without Content-Length until memory is full
    P11 windows     HTTP/2 peers send as fast as the other side takes it; plain mitmproxy collects what it does not take
    P12 claims      the scheme a request in a tunnel claims is judged; plain mitmproxy overwrites it
    P13 claims      a response has a status of three digits; plain mitmproxy lets the client hang
    P14 patience    who does not move is given up, client or upstream; plain mitmproxy waits, and a trickle counts
    P15 websocket   frames pass as they come; plain mitmproxy holds a message whole, and keeps all until the end

What the shell and mitmproxy's side agree on travels in `flow.metadata`: see `addon.hardening.local`.
"""

from addon.hardening import target
from addon.hardening.local import (
    BROKEN,
    END,
    HOLD,
    INJECTED,
    PASS,
    PROVE,
    REFUSAL,
    RELAY,
    RELEASE,
    REQUEST_ID,
    ROOM,
    SCHEME,
    VERDICT,
    connection_refused,
    hang_up,
    local_response,
    pass_on,
    upstream_code,
)
from addon.hardening.target import Unproven

__all__ = [
    "BROKEN",
    "END",
    "HOLD",
    "INJECTED",
    "PASS",
    "PROVE",
    "REFUSAL",
    "RELAY",
    "RELEASE",
    "REQUEST_ID",
    "ROOM",
    "SCHEME",
    "VERDICT",
    "Unproven",
    "connection_refused",
    "hang_up",
    "install",
    "local_response",
    "pass_on",
    "upstream_code",
]


def install() -> None:
    """
    Apply all patches to this process; a second call changes nothing.

    Raises Unproven, before anything is changed, when a patched file of mitmproxy is not one the patches were proved on.
    """
    target.verify()
    # Only after the check: what a future mitmproxy renamed would otherwise be an ImportError without a hint.
    from addon.hardening import (  # noqa: PLC0415
        certstore,
        claims,
        connection,
        dispatch,
        holding,
        http1,
        replies,
        websocket,
        windows,
    )

    if dispatch.installed():
        return
    for patch in (
        replies.reply_at_once,
        replies.answer_errors,
        replies.name_upstream_errors,
        replies.answer_failed_tunnels,
        http1.drop_trailers,
        http1.skip_interim_responses,
        http1.frame_requests,
        http1.drop_response_trailers,
        http1.limit_heads,
        claims.check_claims,
        certstore.keep_many_certificates,
        holding.limit_held_bodies,
        websocket.pass_frames,
        windows.pass_on_credit,
        connection.enter_tunnels,
        dispatch.require_verdict,
        dispatch.fail_closed,
    ):
        patch()
