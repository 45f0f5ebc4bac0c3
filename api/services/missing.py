"""The answer to an id that names nothing the caller may see."""

from stillhouse.spec.errors import NotFound
from stillhouse.spec.ids import NAMED, Prefix, id_wanted, is_id


def missing(prefix: Prefix, id: str) -> NotFound:
    """The same for a thing that does not exist and one of somebody else. Says what an id of the kind looks like to
    who gave something else."""
    noun, listing = NAMED[prefix]
    hint = f"{listing} lists yours."
    if is_id(prefix, id):
        return NotFound(f"There is no {noun} {id}.", hint=hint)
    return NotFound(f"There is no such {noun}: give {id_wanted(prefix, id)}.", hint=hint)
