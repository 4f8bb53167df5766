"""A page to play with a model (`dd-cli app`, extra `app`), and the app of a Space.

Nothing leaves the machine: no statistics, and a policy in every answer by which the browser asks nobody else.
"""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from dd.api import Model
from dd.errors import DDError, install
from dd.publish.drawing import MOST_IMAGES, draw, samplers, side_by_side

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:"
)
SYSTEM = ("system-ui", "sans-serif")


class OnlyThisServer:
    """ASGI middleware: every answer says that the page may load from nowhere else."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy if scope["type"] == "http" else send)


def build(model: Model) -> Any:
    """The page (gradio.Blocks). Raises DDError where Gradio is not installed."""
    try:
        import gradio as gr
    except ImportError:
        raise DDError(f"app: Gradio is not installed: {install('app')}") from None
    names = list(samplers(model))
    quiet: dict[str, Any] = {"format": "png", "interactive": False, "buttons": ["download", "fullscreen"]}
    with gr.Blocks(title=model.name, analytics_enabled=False) as page:
        gr.Markdown(f"# {model.name}\nOne noise, drawn by the student in one or two steps and by its teacher.")
        with gr.Row(equal_height=True):
            if model.text_encoder:
                wanted = gr.Textbox(label="prompt", value="a red boot", elem_id="wanted", scale=3)
            else:
                wanted = gr.Dropdown(model.class_names(), label="class", elem_id="wanted", scale=3)
            seed = gr.Number(0, label="seed", elem_id="seed")
            images = gr.Slider(1, MOST_IMAGES, 9, step=1, label="images", elem_id="images", min_width=240)
            chosen = gr.CheckboxGroup(names, value=names, label="drawn by", elem_id="chosen", scale=2)
        button = gr.Button("Draw", variant="primary", elem_id="draw")
        shown: list[Any] = []
        with gr.Row():
            for place, name in enumerate(names):
                with gr.Column(min_width=240):
                    caption = gr.Markdown(name, elem_id=f"caption-{place}")
                    grid = gr.Image(show_label=False, visible=False, elem_id=f"grid-{place}", **quiet)
                shown += [caption, grid]
        slider = gr.ImageSlider(label="one step | two steps", visible=False, elem_id="slider", **quiet)
        download = gr.DownloadButton("Download all as one picture", visible=False, elem_id="download")
        outputs = [*shown, slider, download]
        button.click(_drawer(model, names), [wanted, seed, images, chosen], outputs, api_name="draw")
    return page


def _drawer(model: Model, names: list[str]) -> Any:
    """What the button does: pictures and times, in the order of the page's parts."""
    import gradio as gr
    from PIL import Image

    files = tempfile.TemporaryDirectory(prefix="dd-app-")  # of downloads; removed with the page

    def drawer(wanted: str, seed: float, images: float, chosen: list[str]) -> list[Any]:
        try:
            drawn = {one.title: one for one in draw(model, wanted, seed, images, chosen)}
        except DDError as error:
            raise gr.Error(str(error), print_exception=False) from None
        found: list[Any] = []
        for name in names:
            one = drawn.get(name)
            found.append(one.caption if one else name)
            found.append(gr.update(value=one.picture if one else None, visible=one is not None))
        pair = [one.picture for name, one in drawn.items() if name != "teacher"][:2]
        both = len(pair) == 2
        found.append(gr.update(value=(pair[0], pair[1]) if both else None, visible=both))
        path = Path(files.name) / f"{model.name}-seed-{seed:.0f}.png"
        Image.fromarray(side_by_side(list(drawn.values()))).save(path)
        return [*found, gr.update(value=str(path), visible=True)]

    return drawer


def launch(model: Model, port: int | None = None, host: str | None = None, wait: bool = True) -> Any:
    """Serve the page; returns its Blocks when `wait` is off.

    host: default this machine alone, or what GRADIO_SERVER_NAME says (a Space sets it); port: default 7860 or
    GRADIO_SERVER_PORT. Raises DDError for a port that is taken.
    """
    host = host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    port = port or int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    check_port(host, port)
    page = build(model)
    import gradio as gr
    from starlette.middleware import Middleware

    if not model.text_encoder:
        model.sample(n=1)  # the first images of a process are the slowest
    page.queue(default_concurrency_limit=1).launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        ssr_mode=False,
        footer_links=[],
        theme=gr.themes.Base(font=SYSTEM, font_mono=("ui-monospace", "monospace")),
        app_kwargs={"middleware": [Middleware(OnlyThisServer)]},
        prevent_thread_lock=True,
    )
    if wait:
        page.block_thread()
    return page


def check_port(host: str, port: int) -> None:
    """Raise DDError unless the port can be opened."""
    if not 1 <= port <= 65535:
        raise DDError(f"app: expected a port from 1 to 65535, got {port}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise DDError(f"app: cannot open port {port} of {host} ({error.strerror}): name another --port") from None
