"""The part of a page that a benchmark writes, between two markers."""

from src.errors import UserError


def page_with(page: str, part: str, name: str) -> str:
    """Return a page whose part of that name is a new one.

    Raises:
        UserError: the markers are not there, each once and in their order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end) or page.count(begin) != 1 or page.count(end) != 1:
        raise UserError(f"--page: the page has no part between one {begin} and one {end}.")
    return f"{before}{begin}\n\n{part.strip()}\n\n{end}{after}"
