"""Binary COPY as PostgreSQL itself writes and reads it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.copybinary import HEADER, TRAILER, count_records, pack_rows, read_records
from infra.db import Database, driver

pytestmark = pytest.mark.anyio

SCALARS = {"a": "int2", "b": "int4", "c": "int8", "d": "float4", "e": "float8", "v": "halfvec(3)"}


async def test_what_the_server_writes_is_read(database: Database, tmp_path: Path) -> None:
    """Every type, extremes included."""
    path = tmp_path / "rows.copy"
    async with database.anonymous_session() as conn:
        raw = await driver(conn)
        await raw.copy_from_query(
            "select a::int2, b::int4, c::int8, d::real, e::float8, v::text::halfvec from (values "
            "(-32768, 2147483647, -9000000000, 1.5, -0.1, '[1,-2,0.5]'), (1, 2, 3, 4, 5, '[0,0,65504]')) "
            "t(a, b, c, d, e, v)",
            output=str(path),
            format="binary",
        )
    assert count_records(path, SCALARS) == 2
    rows = read_records(path, SCALARS)
    assert rows["a"].tolist() == [-32768, 1]
    assert rows["b"].tolist() == [2147483647, 2]
    assert rows["c"].tolist() == [-9000000000, 3]
    assert rows["d"].tolist() == [1.5, 4]
    assert rows["e"].tolist() == [-0.1, 5]
    assert rows["v"].tolist() == [[1, -2, 0.5], [0, 0, 65504]]


async def test_what_is_packed_the_server_reads(database: Database, tmp_path: Path) -> None:
    """Scalars, vectors and lists of several lengths; a row whose lists are empty is left out."""
    path = tmp_path / "rows.copy"
    numbers = np.arange(4)
    lists = numbers[:, None] * 10 + np.arange(3)
    columns = [
        ("int4", numbers),
        ("float4", numbers / 2),
        ("halfvec", np.stack([numbers, -numbers], axis=1)),
        ("int8[]", lists),
        ("int2[]", -lists),
    ]
    path.write_bytes(HEADER + pack_rows(columns, np.array([3, 0, 1, 3])) + TRAILER)
    async with database.anonymous_session() as conn:
        raw = await driver(conn)
        await raw.execute(
            "create temporary table arrived (n int4, f real, v halfvec, a int8[], b int2[]) on commit drop"
        )
        await raw.copy_to_table("arrived", source=str(path), format="binary")
        found = await raw.fetch("select n, f, v::text, a, b from arrived order by n")
    assert [tuple(row) for row in found] == [
        (0, 0.0, "[0,0]", [0, 1, 2], [0, -1, -2]),
        (2, 1.0, "[2,-2]", [20], [-20]),
        (3, 1.5, "[3,-3]", [30, 31, 32], [-30, -31, -32]),
    ]


async def test_a_null_is_refused(database: Database, tmp_path: Path) -> None:
    """A shorter row would shift all that follow."""
    path = tmp_path / "rows.copy"
    async with database.anonymous_session() as conn:
        await (await driver(conn)).copy_from_query(
            "select * from (values (1::int8), (null), (null), (null)) t(a)", output=str(path), format="binary"
        )
    with pytest.raises(ValueError, match=r"rows\.copy"):
        read_records(path, {"a": "int8"})


@given(st.lists(st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)), max_size=20))
def test_packed_rows_are_read_back(rows: list[tuple[int, int]]) -> None:
    """Whatever they hold."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.copy"
        columns = [
            ("int4", np.array([a for a, _ in rows], np.int64)),
            ("int8", np.array([b for _, b in rows], np.int64)),
        ]
        path.write_bytes(HEADER + pack_rows(columns) + TRAILER)
        found = read_records(path, {"a": "int4", "b": "int8"})
        assert list(zip(found["a"].tolist(), found["b"].tolist(), strict=True)) == rows
