"""What answers are made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Described(BaseModel):
    """A part of an answer. The docstrings of its fields are what OpenAPI tells of them."""

    model_config = ConfigDict(use_attribute_docstrings=True)
