"""Thumbnails as one grid of HTML: nothing jumps, and no picture needs a request of its own."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from ssl_core.images import ImageStore
from ssl_core.pictures.thumbnails import CENTRE, WIDTH, data_url, thumbnails

SIDE = 160  # pixels


def grid(
    images: ImageStore,
    item_ids: Sequence[str],
    captions: Sequence[str],
    *,
    centre: float = CENTRE,
    width: float = WIDTH,
    link: bool = False,
) -> None:
    """Items side by side, each over its caption (HTML); window centre and width are of 0..255.

    With `link` a picture leads to its page Case.
    """
    pictures = thumbnails(images, item_ids, side=SIDE, centre=centre, width=width)
    grid_of(item_ids, pictures, captions, link=link)


def grid_of(
    item_ids: Sequence[str], pictures: Sequence[bytes], captions: Sequence[str], *, link: bool
) -> None:
    """The same of pictures (JPEG) that are at hand."""
    cells = (
        f"<figure>{_linked(item_id, data_url(picture), link)}"
        f"<figcaption>{caption}</figcaption></figure>"
        for item_id, picture, caption in zip(item_ids, pictures, captions, strict=True)
    )
    st.html(f'<div class="rl-grid">{"".join(cells)}</div>')


def _linked(item_id: str, url: str, link: bool) -> str:
    picture = f'<img alt="case {item_id[:8]}" src="{url}">'
    return f'<a href="case?item={item_id}" target="_self">{picture}</a>' if link else picture
