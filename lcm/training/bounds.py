"""Bounds: kinds of numbers that settings of trainings are. What a training cannot run with is refused as it is read.

Knows nothing of what the numbers mean.
"""

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
