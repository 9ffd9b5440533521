"""
Reverse mode: plain HTTP from apps on this machine, all of it for one upstream, over TLS.

mitmproxy's own layers carry it, on either engine. They would meet the upstream only after a request is released; here its
certificate is proved first, as in a tunnel.
"""

from mitmproxy.proxy import commands, events, layer, tunnel
from mitmproxy.proxy.layers import ServerTLSLayer
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode


class Reverse:
    """The addon; it goes before mitmproxy's NextLayer."""

    def next_layer(self, choice: layer.NextLayer) -> None:
        """Take every client."""
        if choice.layer is None and len(choice.context.layers) == 1:
            stack = tunnel.LayerStack()
            stack /= ServerTLSLayer(choice.context)
            stack /= MeetUpstream(choice.context)
            stack /= HttpLayer(choice.context, HTTPMode.transparent)
            choice.layer = stack[0]


class MeetUpstream(layer.Layer):
    """Opens the upstream connection before the layer inside begins, which finds on it how that went."""

    child_layer: layer.Layer

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield commands.OpenConnection(self.context.server)
        yield from self.child_layer.handle_event(event)
