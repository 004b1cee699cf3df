"""Thrift's compact protocol, as far as Parquet footers need it: finds the fields of structs in the bytes."""

from __future__ import annotations

from collections.abc import Iterator

TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)  # 16, 32 and 64 bits
_DEEPEST = 64  # levels of nesting; Parquet's own structs have fewer than ten


class Cursor:
    """A position in `data` that advances as values are read. ValueError if the bytes are no such value."""

    def __init__(self, data: bytes, at: int = 0):
        self.data, self.at = data, at

    def byte(self) -> int:
        """The next byte."""
        if not 0 <= self.at < len(self.data):
            raise ValueError("the bytes end within a value")
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        """An unsigned integer of up to 64 bits."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("an integer of more than 64 bits")

    def integer(self) -> int:
        """A signed integer of 16, 32 or 64 bits (zigzag)."""
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def elements(self) -> tuple[int, int]:
        """The header of a list: the type and the number of its elements, which follow."""
        head = self.byte()
        size = head >> 4
        return head & 0x0F, self.varint() if size == 15 else size

    def fields(self) -> Iterator[tuple[int, int]]:
        """The number and type of each field of a struct; the caller reads or skips each value before the next."""
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            yield number, head & 0x0F

    def skip(self, kind: int, depth: int = 0) -> None:
        """Advance past a value of this type."""
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        if kind in (TRUE, FALSE):
            return
        if kind == BYTE:
            self.at += 1
        elif kind in _INTEGERS:
            self.varint()
        elif kind == DOUBLE:
            self.at += 8
        elif kind == BINARY:
            size = self.varint()
            self.at += size
        elif kind in (LIST, SET):
            self._skip_elements(depth)
        elif kind == STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        else:
            raise ValueError(f"{kind} is not a type that Parquet uses")

    def _skip_elements(self, depth: int) -> None:
        kind, count = self.elements()
        for _ in range(count):
            if kind in (TRUE, FALSE):
                self.at += 1  # in lists booleans take a byte
            else:
                self.skip(kind, depth + 1)
