"""Text cells of CSV files that spreadsheets do not execute."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_text(text: str) -> str:
    """Return the text of a cell. An apostrophe precedes a start that spreadsheets read as a formula (CWE-1236)."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
