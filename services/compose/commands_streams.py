"""Commands about the stream itself: `events topics|lag|asyncapi` and `dlq`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.compose.commands_data import events_app, replay_items
from services.compose.console import Json, foundations_of, print_json, print_rows
from services.platform.errors import OslerError

if TYPE_CHECKING:
    from services.compose.rooms import Foundations
    from services.platform.quarantine import QuarantineItem

dlq_app = typer.Typer(
    help="Events that a room could not handle: why, and the way back in. Nothing leaves here by itself.",
    no_args_is_help=True,
)
Room = Annotated[str | None, typer.Option("--room", help="Only what this room could not handle.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(dlq_app, name="dlq")


@events_app.command("topics")
def topics(as_json: Json = False) -> None:
    """Lists every topic: who says what, who listens, and how long a broker keeps it."""
    from services.compose.topology import SUBSCRIPTIONS
    from services.platform.topics import catalogue

    rows = [
        {
            "topic": topic.name,
            "said_by": ", ".join(topic.producers),
            "heard_by": ", ".join(room for room, types in SUBSCRIPTIONS.items() if topic.name in types),
            "kept": "for ever"
            if topic.kept_days is None
            else f"newest of each patient; all for {topic.kept_days} days",
            "what": topic.summary,
        }
        for topic in catalogue().values()
    ]
    if as_json:
        print_json(rows)
    else:
        print_rows("Topics", rows, "")


@events_app.command("asyncapi")
def asyncapi() -> None:
    """Prints the AsyncAPI 3.0 document of the stream, for those who build on it."""
    from services.compose.asyncapi import text

    typer.echo(text("v1"), nl=False)


@events_app.command("lag")
def lag(
    ctx: typer.Context,
    limit: Annotated[
        int | None, typer.Option("--limit", min=0, help="End with code 2 when a room is further behind than this.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Shows how many events each room has yet to handle, and what it has set aside."""
    from services.compose.topology import SUBSCRIPTIONS
    from services.platform.deadletter import door_of

    with foundations_of(ctx) as foundations:
        buried = [item.door for item in foundations.quarantine.list()]
        rows: list[dict[str, Any]] = []
        for room, types in SUBSCRIPTIONS.items():
            behind: dict[str, int] = {}
            for (topic, _), count in foundations.log.lag(room, types).items():
                behind[topic] = behind.get(topic, 0) + count
            total = sum(behind.values())
            worst = max(behind, key=lambda topic: behind[topic]) if total else ""
            rows.append({"room": room, "behind": total, "most_in": worst, "dead_letters": buried.count(door_of(room))})
    if as_json:
        print_json(rows)
    else:
        print_rows("Events yet to handle", rows, "")
    raise typer.Exit(2 if limit is not None and any(row["behind"] > limit for row in rows) else 0)


def _letters(foundations: Foundations, room: str | None, everything: bool = False) -> list[QuarantineItem]:
    from services.compose.topology import SUBSCRIPTIONS
    from services.platform.deadletter import door_of

    if room is not None and room not in SUBSCRIPTIONS:
        raise OslerError(f"unknown room {room!r}; known: {', '.join(SUBSCRIPTIONS)}")
    doors = {door_of(name) for name in ([room] if room else SUBSCRIPTIONS)}
    return [item for item in foundations.quarantine.list(include_replayed=everything) if item.door in doors]


@dlq_app.command("list")
def dlq_list(
    ctx: typer.Context,
    room: Room = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what went in again since.")] = False,
    as_json: Json = False,
) -> None:
    """Lists the events that were set aside, with the reason and what to do."""
    from services.platform.deadletter import decode_event

    with foundations_of(ctx) as foundations:
        rows: list[dict[str, Any]] = []
        for item in _letters(foundations, room, everything):
            event = decode_event(foundations.quarantine.content(item.id))
            rows.append(
                {
                    "id": item.id,
                    "room": item.door.partition(":")[2],
                    "event_type": event.type,
                    "event_id": event.id,
                    "reason": item.refusal.reason,
                    "message": item.refusal.message,
                    "remedy": item.refusal.remedy,
                    "since": item.added_at.isoformat(timespec="seconds"),
                    "replays": item.replays,
                }
            )
    if as_json:
        print_json(rows)
    else:
        print_rows("Dead letters", rows, "no room has set an event aside")


@dlq_app.command("replay")
def dlq_replay(
    ctx: typer.Context,
    item_ids: Annotated[list[str] | None, typer.Argument(help="Ids from `osler dlq list`.")] = None,
    room: Room = None,
    reason: Annotated[str | None, typer.Option(help="Only those refused for this reason.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every one that waits.")] = False,
    as_json: Json = False,
) -> None:
    """Publishes events again after their cause was mended; rooms that had handled them pass them over."""
    chosen = set(item_ids or ())
    if not (chosen or room or reason or everything):
        raise OslerError("name the events to replay, or --room, --reason or --all")
    with foundations_of(ctx) as foundations:
        letters = _letters(foundations, room, everything=bool(chosen))
        unknown = chosen - {item.id for item in letters}
        if unknown:
            raise OslerError(f"no dead letter {', '.join(sorted(unknown))}: `osler dlq list` shows them")
        wanted = [
            item.id
            for item in letters
            if (not chosen or item.id in chosen) and (reason is None or item.refusal.reason == reason)
        ]
        rows = replay_items(foundations, wanted)
    if as_json:
        print_json(rows)
    else:
        print_rows("Published again", rows, "nothing to replay")
    raise typer.Exit(2 if any(row["reason"] for row in rows) else 0)
