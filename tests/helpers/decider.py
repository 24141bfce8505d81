"""A reviewer as a process of its own: reads decisions as JSON lines, says what came of each."""

from __future__ import annotations

import json
import sys

from components.shared.errors import UserError
from components.shared.tracking.client import connect
from pipelines.review import decide
from pipelines.review.state import ReviewedModels


def main() -> None:
    name = sys.argv[1]
    who = decide.Reviewer(name)
    connect()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        models, asked = json.loads(line)
        reviewed = ReviewedModels(*models)
        try:
            if asked == "rollback":
                outcome = decide.rollback(reviewed, f"{name} goes back", who)
            else:
                outcome = decide.approve(reviewed, asked, f"{name} wants {asked}", who)
        except UserError as error:
            said = {"error": str(error)}
        else:
            mine = outcome.decision
            said = {
                "id": mine.id if mine else None,
                "champion": mine.champion if mine else None,
                "overtaken": outcome.overtaken,
                "rivals": [rival.id for rival in outcome.rivals],
                "done": outcome.done,
            }
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
