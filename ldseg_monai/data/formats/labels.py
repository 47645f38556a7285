"""Labels: whole numbers, of gray values, palettes and colors.

A color that is no gray has a number of its own, which depends on nothing but the color, so that it
means the same in every file. Texts such as ``#800000`` name it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from threading import Lock

import numpy as np
from PIL import Image

from ldseg_monai.data.formats.kinds import tell_once
from ldseg_monai.data.formats.pictures import INVERTED, load_picture
from ldseg_monai.data.formats.volumes import Volume, read_voxels
from ldseg_monai.runtime.errors import InputError

COLOR = 1 << 24  # is added to a color's 24 bits, so that it is no gray value
OF_MONAI = "::"  # which MONAI puts in place of each # in a config, of whatever text
TOLERANCE = 1e-3  # between a value and the whole number that it stands for
MAX_COLORS = 64  # of classes; more are a softened outline, or a photograph
MAX_INSTANCE_COLORS = 4096
SMALLEST_SLOPE = 16  # of a softened outline: values of fewer are classes side by side
FEWEST_SHADES = 3  # in between, of a softened outline in colors or of several classes
SOFT_SHARE = 0.5  # of the voxels of values in between that are a slope, or of these values
LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP")  # Pillow's formats that may change what was written
LOSSY_COMPRESSION = ("jpeg", "webp")  # of TIFF


class LabelReading:
    """Reads label files, all of one data set.

    Values are whole numbers, as the files have them: class numbers, gray values, or numbers of
    colors (see `value_number`). It remembers what each color of a palette stands for.

    Args:
        label_values: those that the files are known to have, as of `value_number`; None for none.
        instances: whether labels are instance ids, whose colors mean nothing.
        any_outline: whether values that are there along outlines alone are taken as classes.
    """

    def __init__(
        self,
        label_values: Sequence[int | str] | None = None,
        instances: bool = False,
        any_outline: bool = False,
    ) -> None:
        values = label_values or ()
        self.known = {value_number(value) for value in values}
        self.by_color = any(isinstance(value, str) for value in values)
        self.instances = instances
        self.any_outline = any_outline
        self.palette: dict[str, tuple[int, str]] = {}
        self.lock = Lock()  # of the palette: a data set is cached by several threads

    def __getstate__(self) -> dict:
        """Everything but the lock, for a loader's worker."""
        return {key: value for key, value in self.__dict__.items() if key != "lock"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__ = {**state, "lock": Lock()}

    def volume(self, path: str, require_codes: bool = False) -> tuple[np.ndarray, Volume]:
        """Read a label volume.

        Args:
            path: of the file.
            require_codes: as of `load_volume`.

        Returns:
            Values, int32, and the volume.

        Raises:
            FileNotFoundError, ValueError: as of `read_voxels`; ValueError for values
                that are no whole numbers or softened outlines, and for instance ids without a
                background.
        """
        voxels, volume = read_voxels(path, require_codes)
        values = whole_numbers(path, voxels)
        self._check_instances(path, values)
        self._check_outlines(path, values)
        return values, volume

    def picture(self, path: str) -> np.ndarray:
        """Read a label picture.

        Returns:
            Values, int32 ``(columns, rows)``.

        Raises:
            FileNotFoundError, ValueError: as of `load_picture`; ValueError for a format with loss,
                a palette that does not tell the background or differs from that of other files, too
                many colors, values that are no whole numbers, softened outlines, instance ids
                without a background, or black beside transparent pixels.
        """
        picture = load_picture(path)
        compression = picture.info.get("compression")
        if picture.format in LOSSY or compression in LOSSY_COMPRESSION:
            raise InputError(
                f"{path} is a JPEG or its like, which changes the values at outlines: expected a "
                "label without loss, such as PNG; write it again from its source"
            )
        if picture.info[INVERTED]:
            tell_once(
                f"{path} says that its 0 is white, as tifffile writes bool masks: read as viewers "
                "show it, with black as the background; so are other labels like it",
                kind="white at 0",
            )
        hidden = _hidden(path, picture)
        if picture.mode in ("P", "PA"):
            values = self._of_palette(path, picture, hidden)
        elif picture.mode in ("RGB", "RGBA", "RGBX"):
            values = _of_colors(np.asarray(picture)[..., :3])
        elif picture.mode == "LA":
            values = np.asarray(picture)[..., 0].astype(np.int32)
        elif picture.mode in ("CMYK", "YCbCr"):
            raise InputError(
                f"{path} is of mode {picture.mode}, in which colors are not exact: expected a "
                "label in gray, a palette or RGB; convert it"
            )
        else:
            values = whole_numbers(path, np.asarray(picture))
        if hidden is not None:
            if (values[~hidden] == 0).any():
                raise InputError(
                    f"{path} has black and transparent pixels, and either may be the background: "
                    "expected one of them; write it without transparency"
                )
            values = np.where(hidden, 0, values)
        values = values.T  # (columns, rows)
        self._check_colors(path, values)
        self._check_instances(path, values)
        self._check_outlines(path, values)
        return values

    def _of_palette(self, path: str, picture: Image.Image, hidden: np.ndarray | None) -> np.ndarray:
        """Values of a picture whose pixels are indices of a list of colors.

        The colors decide. Indices are values where they are gray values themselves, or where the
        first color of the list is black, which is the background; nothing else says so.
        """
        indices = np.asarray(picture if picture.mode == "P" else picture.getchannel("P"))
        drawn = indices if hidden is None else indices[~hidden]
        used = np.unique(drawn)
        listed = np.reshape(picture.getpalette("RGB") or [], (-1, 3))
        if used.max(initial=0) >= len(listed):
            raise InputError(
                f"{path} has the index {used.max()} and a palette of {len(listed)} colors: "
                "expected a color for each; write it again"
            )
        colors = _of_colors(listed[None])[0]  # of each index
        if (colors[used] == used).all():  # a list of grays, each at its own place
            return indices.astype(np.int32)
        names = ", ".join(f"{index} {_color_text(listed[index])}" for index in used[:10])
        shown = f"{names}{', ...' if len(used) > 10 else ''}"
        if len(set(colors[used].tolist())) < len(used):
            raise InputError(
                f"{path} has one color at several indices of its palette ({shown}): expected "
                "different colors; write it in gray, with class numbers"
            )
        background_is_hidden = hidden is not None and bool(hidden.any())
        first_is_black = colors[0] == 0 and not (colors[used[used > 0]] == 0).any()
        if self.by_color:
            numbers = colors
        elif first_is_black:
            numbers = np.arange(len(colors))
        elif not background_is_hidden and 0 not in colors[used]:
            raise InputError(
                f"{path} has no black in its palette ({shown}), so nothing says which color is the "
                "background: expected black; write it in gray, with class numbers and 0 for the "
                "background"
            )
        elif len(used) == 2 and not background_is_hidden:
            numbers = (colors != 0).astype(int)  # as a list that begins with black has it
        else:
            numbers = colors
        if not self.instances:
            self._remember(path, listed, numbers, used)
        return numbers.astype(np.int32)[indices]

    def _remember(
        self, path: str, listed: np.ndarray, numbers: np.ndarray, used: np.ndarray
    ) -> None:
        """Check that each color of a palette stands for what it did in the files before.

        Raises:
            ValueError: if it does not.
        """
        with self.lock:
            for index in used[numbers[used] != 0]:
                color, number = _color_text(listed[index]), int(numbers[index])
                for other, (value, first) in self.palette.items():
                    if (other == color) != (value == number):
                        raise InputError(
                            f"{path} has {color} for {value_name(number)} in its palette, and "
                            f"{first} {other} for {value_name(value)}: expected one palette in a "
                            "data set; write the labels in RGB and name their colors in "
                            "label_values, or in gray with class numbers"
                        )
                self.palette.setdefault(color, (number, path))

    def _check_colors(self, path: str, values: np.ndarray) -> None:
        """Check that colors are as many as classes may be, and that one is the background.

        Raises:
            ValueError: if they are not.
        """
        if values.max(initial=0) < COLOR:
            return
        found = list(value_counts(values))
        count = len(found)
        limit = MAX_INSTANCE_COLORS if self.instances else MAX_COLORS
        if count > limit:
            raise InputError(
                f"{path} has {count} colors: expected at most {limit}, one for each "
                f"{'instance' if self.instances else 'class'}; is it a picture, or does it have "
                "softened outlines?"
            )
        if count > 1 and found[0] != 0 and not self.known.issuperset(found):
            raise InputError(
                f"{path} has the colors {value_names(found)} and no black, so nothing says "
                "which is the background: expected black; draw it black, or name the colors in "
                "label_values, the background's first"
            )

    def _check_instances(self, path: str, values: np.ndarray) -> None:
        """Check that instance ids leave something to the background, which is 0.

        Raises:
            ValueError: if one is below 0, or several are there and no 0.
        """
        if not self.instances or not values.size:
            return
        low, high = int(values.min()), int(values.max())
        if low < 0 or 0 < low < high:
            raise InputError(
                f"{path} has the values {value_names(value_counts(values))}: expected instance ids "
                "from 1 on, and 0 for the background; write it so"
            )

    def _check_outlines(self, path: str, values: np.ndarray) -> None:
        """Check that no values are there merely because an outline was softened.

        A resize with interpolation, or smooth drawing, leaves slopes between two values. Those are
        told from thin classes by their neighbors, some of which are lower and some higher.

        Raises:
            ValueError: if they are.
        """
        if self.any_outline or not values.size:
            return
        low, high = int(values.min()), int(values.max())
        if high - low < SMALLEST_SLOPE:
            return
        found = list(value_counts(values))
        consecutive = len(found) == high - low + 1 and high < MAX_COLORS
        fewest = FEWEST_SHADES if high >= COLOR else 1  # numbers of colors have no order
        few = len(found) - 2 < fewest
        if few or consecutive or self.known.issuperset(found):
            return
        from scipy.ndimage import maximum_filter, minimum_filter

        between = (values > low) & (values < high)
        lowest, highest = minimum_filter(values, 3), maximum_filter(values, 3)
        slope = between & (lowest < values) & (values < highest)
        # Of several classes, those in between are wide, and the shades are many
        slopes = value_counts(values[slope])
        counts = value_counts(values[between])
        shades = [value for value in slopes if slopes[value] > SOFT_SHARE * counts[value]]
        mostly = FEWEST_SHADES <= len(shades) > SOFT_SHARE * len(counts)
        if mostly or slope.sum() > SOFT_SHARE * between.sum():
            names = value_names(shades or found[1:-1])
            raise InputError(
                f"{path} has the values {names} along outlines alone, between "
                f"{value_name(low)} and {value_name(high)}: expected classes; is it a softened "
                "outline? threshold it, and resample labels with the nearest neighbor"
            )


def value_number(value: int | str) -> int:
    """Number of a value in label files.

    Args:
        value: the number itself, or a color as ``#RRGGBB``. The number of a gray is its gray value.

    Raises:
        ValueError: for another text.
    """
    if not isinstance(value, str):
        return int(value)
    value = value.replace(OF_MONAI, "#", 1)
    if not re.fullmatch("#[0-9a-fA-F]{6}", value):
        raise InputError(
            f"label value {value!r}: expected a whole number, or a color such as '#800000'"
        )
    color = [int(value[start : start + 2], 16) for start in (1, 3, 5)]
    return int(_of_colors(np.array([[color]], np.uint8))[0, 0])


def value_name(value: float) -> str:
    """A value in label files as a person reads it: a color as ``#rrggbb``, else the number."""
    if value >= COLOR and value == int(value) and value < 2 * COLOR:
        return f"#{int(value) - COLOR:06x}"
    return f"{value:.9g}"


def value_names(values: Iterable[float], limit: int = 5) -> str:
    """Some values as a person reads them."""
    names = [value_name(value) for value in values]
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def whole_numbers(path: str, values: np.ndarray) -> np.ndarray:
    """Round values that stand for whole numbers, as arithmetic in floating point leaves them.

    Args:
        path: of the file, for messages.
        values: of any type.

    Returns:
        int32 of the same shape.

    Raises:
        ValueError: for a value that is more than a thousandth off, not finite, or too large.
    """
    if values.dtype.kind == "b":
        return values.astype(np.int32)
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(values - np.rint(values)) <= TOLERANCE)  # NaN is wrong too
        if wrong.any():
            raise InputError(
                f"{path} has the values {value_names(np.unique(values[wrong]).tolist())}: expected "
                "whole numbers, the classes; was it resampled by interpolation, or is it a "
                "softened outline? threshold it, or use the nearest neighbor"
            )
        rounded = np.rint(values)
        if values.any() and not rounded.any():
            raise InputError(
                f"{path} has values up to {value_name(np.abs(values).max())}, all of which are 0 "
                "as whole numbers: expected classes; is its scaling (scl_slope) wrong?"
            )
        values = rounded
    limits = np.iinfo(np.int32)
    if values.size and (values.min() < limits.min or values.max() > limits.max):
        raise InputError(
            f"{path} has values from {values.min()} to {values.max()}: expected at most "
            f"{limits.max}; number the labels anew"
        )
    return values.astype(np.int32)


def value_counts(values: np.ndarray) -> dict[int, int]:
    """The values that an int32 array has, ascending, and how often."""
    if values.size and values.min() >= 0 and values.max() < 1 << 16:  # many times faster
        often = np.bincount(values.ravel())
        found = often.nonzero()[0]
        counts = often[found]
    else:
        found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def label_picture(values: np.ndarray) -> Image.Image:
    """A picture of label values ``(rows, columns)``: in colors where one of them is a color."""
    if values.max(initial=0) < COLOR:
        return Image.fromarray(values)
    gray = np.repeat(values[..., None], 3, axis=-1)  # (rows, columns, 3)
    colors = np.stack([values >> shift & 255 for shift in (16, 8, 0)], axis=-1)
    return Image.fromarray(np.where(gray < COLOR, gray, colors).astype(np.uint8))


def _of_colors(colors: np.ndarray) -> np.ndarray:
    """Numbers of colors ``(rows, columns, 3)``: of a gray its value, of others a number each."""
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    number = COLOR | red << 16 | green << 8 | blue
    gray = (red == green) & (green == blue)
    return np.where(gray, red, number)


def _hidden(path: str, picture: Image.Image) -> np.ndarray | None:
    """Where a label is transparent, so that nothing is seen, ``(rows, columns)``; None for nowhere.

    Raises:
        ValueError: if it is transparent everywhere, or in several degrees.
    """
    if not picture.has_transparency_data:
        return None
    opacity = np.asarray(picture.convert("RGBA").getchannel("A"))
    degrees = np.unique(opacity)
    if degrees[-1] == 0:
        raise InputError(
            f"{path} is transparent everywhere, so that nothing is seen: expected opaque colors; "
            "write it without transparency"
        )
    if len(degrees[degrees > 0]) > 1:
        raise InputError(
            f"{path} is transparent in {len(degrees)} degrees: expected what is drawn to be as "
            "opaque everywhere; is it a softened outline? threshold it"
        )
    return opacity == 0 if degrees[0] == 0 else None


def _color_text(color: np.ndarray) -> str:
    red, green, blue = (int(part) for part in color)
    return f"#{red:02x}{green:02x}{blue:02x}"
