"""Logos: heights in bits, and a file of its own that an XML parser reads."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from genodl_spark.report import logos


def test_letters_are_as_high_as_what_they_tell() -> None:
    shares = np.array([[1.0, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0], [0.5, 0.25, 0.125, 0.125]])
    np.testing.assert_allclose(
        logos.heights(shares), [[2, 0, 0, 0], [0] * 4, [0.5, 0.5, 0, 0], [0.125, 0.0625, 0.03125, 0.03125]], atol=1e-12
    )


def test_a_logo_is_a_file_of_its_own() -> None:
    shares = np.array([[0.97, 0.01, 0.01, 0.01]] * 3)
    text = logos.document(shares, "A & <B>: 12 places")
    root = ElementTree.fromstring(text.encode())
    assert root.tag.endswith("svg") and root[0].text == "A & <B>: 12 places"
    assert "#0102" not in text and "var(--s2)" in text and "--s2:#" in text
    assert text == logos.document(shares, "A & <B>: 12 places")
