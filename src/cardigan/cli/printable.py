"""Text for a terminal. A file name may contain control characters, which could move the cursor or change colors."""


def printable(text: str) -> str:
    """Return the text with its control characters, except line breaks, replaced by the replacement character."""
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}" for character in text
    )
