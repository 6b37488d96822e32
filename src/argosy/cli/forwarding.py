"""port-forward: ports of this machine that lead to ports of a node, through the server and the agent."""

from __future__ import annotations

import threading

import click

from argosy.cli.session import Session, complete_cluster, pass_session


class Ports(click.ParamType[tuple[int, int]]):
    """`8080`, or `8080:80`: here, then on the node. `0:80` takes any port that is free here."""

    name = "[local:]remote"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        here, _, there = str(value).partition(":")
        there = there or here
        if not (here.isdigit() and there.isdigit() and int(here) < 65536 and 0 < int(there) < 65536):
            self.fail(f"`{value}` is no port: write 8080, or 8080:80 for port 80 of the node.", param, ctx)
        return int(here), int(there)


@click.command(
    "port-forward",
    epilog="""\b
Examples:
  argosy port-forward dev 8888
  argosy port-forward dev 8080:80 6006 --node 1
  argosy port-forward dev 8265 --open

Programs on the node may listen on 127.0.0.1. Ctrl-C ends it.""",
)
@click.argument("cluster", shell_complete=complete_cluster)
@click.argument("ports", nargs=-1, required=True, type=Ports(), metavar="[LOCAL:]PORT...")
@click.option("--node", type=click.IntRange(min=0), default=0, show_default=True, help="Number of the node.")
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen on this machine.")
@click.option(
    "--open", "opens", is_flag=True, help="Show it in the browser, at a host name of its own, like an app."
)
@pass_session
def port_forward(
    session: Session, cluster: str, ports: tuple[tuple[int, int], ...], node: int, address: str, opens: bool
) -> None:
    """Reach ports of a node from here."""
    if opens:
        from argosy.cli.session_opening import open_page

        if len(ports) != 1 or node or address != "127.0.0.1":
            raise click.UsageError("--open is for one port of node 0, on this machine")
        here, there = ports[0]
        shown = session.client.open_port(cluster, there)
        open_page(session, shown, port=0 if here == there else here, name=cluster)
        return
    from argosy.api.shell import ShellCalls
    from argosy.client.forwarding import listen, serve_port
    from argosy.client.node_stream import NodeStream

    client, screen = session.client, session.screen
    client.cluster(cluster)  # starts the server if need be, and knows the cluster
    location = client.location

    listeners = [(listen(address, here), there) for here, there in ports]
    with session.on_interrupt(lambda: f"No longer forwarding ports of `{cluster}`."):
        threads = []
        for listener, there in listeners:
            target = ShellCalls.forward(cluster, port=there, node=node).target

            def opened(target: str = target) -> NodeStream:
                return NodeStream(location, target)

            threads.append(
                threading.Thread(target=serve_port, args=(listener, opened, screen.say_error), daemon=True)
            )
            threads[-1].start()
            here = listener.getsockname()[1]
            host = f"[{address}]" if ":" in address else address
            screen.print(f"{host}:{here} -> port {there} of node {node} of {cluster}")
        screen.out.flush()
        for thread in threads:
            thread.join()
