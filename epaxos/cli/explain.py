"""`epaxos explain`: one request's journey, stage by stage, as the replica that served it saw it.

Replicas stamp a sample of their batches (`explain_per_s`); this draws what they kept. Durations are
of the clock of that one replica. Without a request: the latest samples, slowest first.

Rules of this file: `picture` and `sentences` are pure; only the verb asks.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

import topology
from bench.analysis.units import ms
from epaxos.cli.kv import region_name
from epaxos.cli.options import ClusterFile, Json, Timeout
from epaxos.cli.output import console, count, make_table, print_json
from epaxos.core.errors import AddressError, ConfigError, EpaxosError
from epaxos.core.types import REPLICAS_MAX
from epaxos.http_client import base_url, fetch_json

app = typer.Typer()

DEFAULT_URLS: Final = [f"http://127.0.0.1:{8001 + i}" for i in range(REPLICAS_MAX)]
"""Where `epaxos up` puts HTTP unless told otherwise."""
BAR_COLUMNS: Final = 40
_TITLES: Final = {"preaccept": "pre-accept"}
_NOTICED_MS: Final = 0.05
"""What is shorter shows as 0.0 and is not worth a sentence."""

Sample = Mapping[str, Any]
"""A document of `/v1/explain`."""


@app.command()
def explain(
    request: Annotated[
        str | None,
        typer.Argument(
            metavar="REQUEST",
            help="An instance (A.7), a version or ETag (0.A.7.0), or an X-Request-Id; without it, "
            "the latest samples.",
            show_default=False,
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="URL", help="HTTP address; by default a cluster of `epaxos up`."),
    ] = None,
    via: Annotated[
        str | None,
        typer.Option(metavar="REGION", help="Ask the replica of this region only."),
    ] = None,
    cluster: ClusterFile = None,
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="Without REQUEST: so many of the latest samples.")
    ] = 10,
    timeout: Timeout = 10.0,
    json: Json = False,
) -> None:
    """Draw how one request went: queue, sync, rounds with their quorums, execution, answer.

    Says which replica's answer completed each quorum, why a second round was needed, and what
    execution waited for. Replicas sample their batches: a quiet cluster keeps every one."""
    urls = _urls(at, via, cluster)
    if request is None:
        _show_latest(urls, limit, timeout, json)
        return
    url, sample = _find(urls, request, timeout)
    others = _mentioned(url, sample, timeout)
    if json:
        print_json({**sample, "mentioned": others})
        return
    screen = console()
    for line in [*picture(sample), "", *sentences(sample, others)]:
        screen.print(line, soft_wrap=True)


def _urls(at: str | None, via: str | None, file: Path | None) -> list[str]:
    if at is not None:
        if via is not None or file is not None:
            raise ConfigError("--at names one replica already; leave --via and --cluster away")
        return [base_url(at)]
    if file is None:
        urls = DEFAULT_URLS
        if via is None:
            return urls
        regions = {}
        for url in urls:
            try:
                regions[url] = fetch_json(f"{url}/v1/explain?limit=1", 1.0)
            except AddressError:
                continue
        for field, wanted in (("region", {via, _title(via)}), ("replica", {via})):
            for url, here in regions.items():
                if here[field].casefold() in {each.casefold() for each in wanted}:
                    return [url]
        known = ", ".join(f"{here['replica']} ({here['region']})" for here in regions.values())
        raise ConfigError(
            f"--via {via}: no such region answers; "
            + (f"choose one of {known}" if known else "start a cluster with `epaxos up`")
        )
    from epaxos.runtime.config import find_member, load_cluster

    settings = load_cluster(file, {}, os.environ)
    members = settings.replicas
    if via is not None:
        members = [members[find_member(settings, region_name(via, settings.topology), "--via")]]
    return [base_url(f"{m.host}:{m.http_port}") for m in members]


def _title(text: str) -> str:
    """`Tokyo` for `JP`: what replicas call the region in what they explain."""
    regions = topology.find(topology.DEFAULT).regions
    return next((r.title for r in regions if r.name.casefold() == text.casefold()), text)


def _find(urls: list[str], request: str, timeout: float) -> tuple[str, dict[str, Any]]:
    """Who keeps the sample, and it. Raises the words of those who do not."""
    refusals: list[EpaxosError] = []
    for url in urls:
        try:
            return url, fetch_json(
                f"{url}/v1/explain/{quote(os.fsencode(request), safe='')}", timeout
            )
        except AddressError as error:
            if len(urls) == 1:
                raise
            refusals.append(error)
        except EpaxosError as error:
            refusals.append(error)
    heard = [error for error in refusals if not isinstance(error, AddressError)]
    if not heard:
        raise _nobody(urls)
    if len(heard) == 1:
        raise heard[0]
    raise EpaxosError(
        f"none of {len(heard)} replicas keeps a sample of {request}: it was not sampled, or is too "
        "old; explain_per_s in the cluster file says how many batches per second are"
    )


def _nobody(urls: list[str]) -> AddressError:
    return AddressError(
        f"no replica answers on {urls[0]} … {urls[-1].rpartition(':')[2]}; start a cluster with "
        "`epaxos up`, or name a replica with --at URL"
    )


def _mentioned(url: str, sample: Sample, timeout: float) -> dict[str, str]:
    """What the instances that held this one up are about, as far as the replica still knows."""
    ids = [name for answer in sample["answers"] for name in answer["also"]]
    ids += [held["instance"] for held in sample["held_by"]]
    about = {}
    for name in dict.fromkeys(ids):
        try:
            known = fetch_json(f"{url}/v1/instances/{name}", timeout)
        except EpaxosError:
            continue
        words = [
            f"{verb} {_few(known[field])}"
            for verb, field in (("writes", "writes"), ("reads", "reads"))
            if known.get(field)
        ]
        about[name] = "a Nop" if known.get("nop") else " and ".join(words)
    return {name: words for name, words in about.items() if words}


def _few(keys: list[str]) -> str:
    more = f" and {count(len(keys) - 2)} more keys" if len(keys) > 2 else ""
    return ", ".join(keys[:2]) + more


# The picture -------------------------------------------------------------------------------------


def heading(sample: Sample) -> str:
    """What was asked where, and how long it took."""
    parts = [f"{_what(sample)} at {sample['region']}"]
    parts.append(sample["instance"] or "not decided yet")
    if sample["path"] is not None:
        parts.append({"leader": "leader's log"}.get(sample["path"], f"{sample['path']} path"))
    if sample["answer_ms"] is not None:
        parts.append(f"answered after {ms(sample['answer_ms'])} ms")
    elif not sample["nop"]:
        parts.append(f"not answered after {ms(sample['age_ms'])} ms")
    return " · ".join(parts)


def _what(sample: Sample) -> str:
    first = sample["first"][0]
    more = sample["commands"] - 1
    others = f" and {count(more)} more command{'s' * (more > 1)}" if more else ""
    return f"{first['operation'].upper()} {first['key']}{others}"


def picture(sample: Sample) -> list[str]:
    """One bar per stage, to scale, with the answers that came in it.

    An answer stands with its time since the arrival; `+A.88`: it named this dependency too."""
    stages = sample["stages"]
    ends = [stage["start_ms"] + stage["ms"] for stage in stages]
    whole = max([*ends, sample["age_ms"] if sample["under_way"] else 0, 0.001])
    lines = [heading(sample), ""]
    for stage in stages:
        note = _note(stage, sample)
        lines.append(_line(stage["name"], stage["start_ms"], stage["ms"], whole, note))
    if sample["under_way"] is not None:
        begin = ends[-1] if ends else 0.0
        lines.append(_line(sample["under_way"], begin, whole - begin, whole, "still under way"))
    return lines


def _line(name: str, start: float, length: float, whole: float, note: str) -> str:
    left = round(start / whole * BAR_COLUMNS)
    right = round((start + length) / whole * BAR_COLUMNS)
    bar = "━" * (right - left)
    if not bar and length >= _NOTICED_MS:
        left, bar = min(left, BAR_COLUMNS - 1), "╸"
    field = f"{' ' * left}{bar}".ljust(BAR_COLUMNS)
    return f" {_TITLES.get(name, name):<10} {ms(length):>8}  {field}  {note}".rstrip()


def _note(stage: Mapping[str, Any], sample: Sample) -> str:
    region = sample["regions"]
    if stage["name"] == "leader":
        return f"forwarded to {region[sample['leader']]}"
    if stage["name"] == "execute" and sample["held_by"]:
        return "held by " + ", ".join(held["instance"] for held in sample["held_by"])
    answers = {"preaccept": sample["answers"], "accept": sample["accepts"]}.get(stage["name"], [])
    words = []
    for answer in answers:
        also = "".join(f" +{instance}" for instance in answer["also"])
        words.append(f"{region[answer['replica']]} {ms(answer['at_ms'])}{also}")
    if words and stage["closed_by"] is not None:
        words[-1] += " ◂ last"
    return " · ".join(words)


# The sentences -----------------------------------------------------------------------------------


def sentences(sample: Sample, about: Mapping[str, str]) -> list[str]:
    """Why it took the stages it took. `about` says what other instances do, where it is known."""
    stages = {stage["name"]: stage for stage in sample["stages"]}
    region: Mapping[str, str] = sample["regions"]

    def named(instance: str) -> str:
        home = "" if sample["leader"] else f"from {region[instance.partition('.')[0]]}"
        words = ", ".join(word for word in (about.get(instance), home) if word)
        return f"{instance} ({words})" if words else instance

    lines = []
    queued = stages.get("queue", {"ms": 0.0})["ms"]
    if queued >= _NOTICED_MS:
        lines.append(
            f"queue: waited {ms(queued)} ms because an instance on the same key was not executed"
        )
    lines += _about_agreement(sample, stages, named)
    if sample["under_way"] in ("preaccept", "accept") and not sample["nop"]:
        heard = sample["accepts"] if sample["under_way"] == "accept" else sample["answers"]
        who = ", ".join(region[answer["replica"]] for answer in heard) or "nobody"
        lines.append(f"not decided yet; so far heard of: {who}")
    for held in sample["held_by"]:
        lines.append(
            f"execution waited {ms(held['ms'])} ms for {named(held['instance'])}, which was not "
            "committed here"
        )
    if "execute" in stages and not sample["held_by"]:
        lines.append("executed at once: everything that comes before it had executed here")
    if sample["late"]:
        lines.append("its clients had stopped waiting by then")
    lines.append(f"all durations by the clock of {sample['region']}")
    return lines


def _about_agreement(
    sample: Sample, stages: Mapping[str, Any], named: Callable[[str], str]
) -> list[str]:
    region: Mapping[str, str] = sample["regions"]
    if sample["nop"]:
        return [
            "its instance was taken over and decided without it (a Nop); its commands were "
            "proposed again under another instance"
        ]
    if sample["forwarded"]:
        leader = region[sample["leader"]]
        return [
            f"forwarded to {leader}, the leader; how {leader} spent that time is known only there"
        ]
    if sample["leader"] is not None:
        return _last(stages, "accept", region, "the vote of {} completed the majority")
    if sample["path"] == "fast":
        said = "fast path: all answers agreed; that of {} completed the quorum"
        return _last(stages, "preaccept", region, said) or ["fast path: alone, nobody had to agree"]
    if sample["path"] in ("recovered", "learned"):
        return ["decided by another replica, which had taken it over"]
    if "preaccept" not in stages or "accept" not in {*stages, sample["under_way"]}:
        return []
    seen: dict[str, list[str]] = {}
    for answer in sample["answers"]:
        for instance in answer["also"]:
            seen.setdefault(instance, []).append(region[answer["replica"]])
    lines = [
        f"slow path: {_list(regions)} had seen {named(instance)}"
        for instance, regions in seen.items()
    ] or ["slow path: too few replicas answered in time for the fast one"]
    return lines + _last(stages, "accept", region, "second round: {} completed the quorum")


def _last(
    stages: Mapping[str, Any], name: str, region: Mapping[str, str], sentence: str
) -> list[str]:
    closed_by = stages[name]["closed_by"] if name in stages else None
    return [] if closed_by is None else [sentence.format(region[closed_by])]


def _list(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


# The latest --------------------------------------------------------------------------------------


def _show_latest(urls: list[str], limit: int, timeout: float, json: bool) -> None:
    heard: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    for url in urls:
        try:
            here = fetch_json(f"{url}/v1/explain?limit={limit}", timeout)
        except AddressError:
            if len(urls) == 1:
                raise
            continue
        heard.append(here)
        context = {key: here[key] for key in ("replica", "region", "regions")}
        samples += [{**context, **sample} for sample in here["samples"]]
    if not heard:
        raise _nobody(urls)
    samples.sort(key=lambda sample: sample["age_ms"])
    latest = sorted(samples[:limit], key=_slowness, reverse=True)
    if json:
        print_json({"samples": latest})
        return
    screen = console()
    if not latest:
        off = not any(here["per_second"] for here in heard)
        screen.print(
            "nothing is sampled; set explain_per_s in the cluster file"
            if off
            else "no samples yet: they are made of commands, for example `epaxos kv put x 1`"
        )
        return
    screen.print(latest_table(latest))
    screen.print(f"ms by each replica's own clock; one of them: epaxos explain {_id(latest[0])}")


def _slowness(sample: Sample) -> float:
    answer = sample["answer_ms"]
    return float(sample["age_ms"] if answer is None else answer)


def _id(sample: Sample) -> str:
    return str(sample["instance"] or "–")


def latest_table(samples: list[dict[str, Any]]) -> Any:
    """Samples as rows, their stages as columns."""
    from epaxos.node.sampling import STAGES

    present = {stage["name"] for sample in samples for stage in sample["stages"]}
    columns = [name for name in STAGES if name in present]
    headings = [f">{_TITLES.get(name, name)}" for name in columns]
    table = make_table("region", "instance", "request", "path", ">answer", *headings, "last vote")
    for sample in samples:
        stages = {stage["name"]: stage for stage in sample["stages"]}
        closers = [stage["closed_by"] for stage in sample["stages"] if stage["closed_by"]]
        answer = sample["answer_ms"]
        table.add_row(
            sample["region"],
            _id(sample),
            _what(sample),
            sample["path"] or "–",
            "–" if answer is None else ms(answer),
            *(ms(stages[name]["ms"]) if name in stages else "–" for name in columns),
            sample["regions"][closers[-1]] if closers else "–",
        )
    return table
