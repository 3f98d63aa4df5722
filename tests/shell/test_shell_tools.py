"""PIPE, GET_FILE, PUT_FILE, QUOTE and filters as processes, beside a broker with a scripted model."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, scripted_toml
from places import BIN, Shell, counter, good, own, recorded

from ssmprov.transcript import FENCE, turn, turns_of

# -- PIPE


def test_a_half_step_and_a_full_step_are_sent_and_recorded(sh: Shell, place: Path, cluster: Cluster) -> None:
    assert good(sh("PIPE --in CONTEXT", "You are kind.\n")) == "end)~~~\n\n"
    assert good(sh("PIPE --in USER --out OK", "How are you?\n")) == "fine" + FENCE
    expected = turn(1, "CONTEXT", "You are kind.") + turn(2, "USER", "How are you?") + turn(3, "OK", "fine")
    assert (recorded(place), counter(place)) == (expected, "3")
    with cluster.client() as client:  # the directory's context has read just that
        assert client.text(own(place)) == expected


def test_raw_text_goes_as_it_is_and_mints_nothing(sh: Shell, place: Path) -> None:
    assert good(sh("PIPE", "raw\n")) == "hello!"
    assert (recorded(place), counter(place)) == ("rawhello!", "")
    assert good(sh("PIPE --in USER", "next")) == "end)~~~\n\n"  # after an open line a header begins a new one
    assert [t.content for t in turns_of(recorded(place))] == ["next"]


def test_nothing_in_is_nothing_out(sh: Shell, place: Path) -> None:
    assert good(sh("PIPE --in USER --out OK")) == ""
    assert good(sh("PIPE --in USER --out OK", "\n")) == ""
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "PIPE --in USER --out OK --load nowhere",
        "PIPE --in USER --out OK --settings nowhere",
        "PIPE --in USER --out OK --set temp=hot",
        "PIPE --in USER --out OK --model nowhere",
        "PIPE --in 'A]' --out OK",
        "PIPE --out OK",
        "PIPE --in USER --out OK --port 1",
        "PIPE --in USER --port 1 --load x",
        "PIPE --in USER --bang x --load y",
        "PIPE --in USER --bang 'a b c d'",
        "PIPE --in USER --save ../x",
    ],
)
def test_a_failure_mints_nothing_and_appends_nothing(sh: Shell, place: Path, line: str) -> None:
    good(sh("PIPE --in CONTEXT", "before"))
    before = (recorded(place), counter(place))
    done = sh(line, "text")
    assert done.returncode != 0
    assert (done.stdout, done.stderr.count(b"Traceback")) == (b"", 0)
    assert done.stderr.startswith(b"PIPE: ")
    assert (recorded(place), counter(place)) == before


def test_no_broker_is_exit_3_and_changes_nothing(sh: Shell, place: Path) -> None:
    done = sh("PIPE --in USER", "text", SSMPROV_BROKER="ipc:///nowhere/broker.sock")
    assert done.returncode == 3
    assert recorded(place) == ""


def test_text_that_is_no_utf_8_is_refused(sh: Shell, place: Path) -> None:
    done = sh("PIPE --in USER", b"a\xffb")
    assert (done.returncode, recorded(place)) == (1, "")
    assert b"not UTF-8 text: byte 1" in done.stderr


def test_pipes_at_once_never_share_a_number_or_interleave(sh: Shell, place: Path, cluster: Cluster) -> None:
    threads = [threading.Thread(target=lambda i=i: good(sh("PIPE --in USER --out OK", f"n{i}"))) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns = turns_of(recorded(place))
    assert [t.number for t in turns] == list(range(1, 13))
    assert sorted(t.content for t in turns[::2]) == [f"n{i}" for i in range(6)]
    assert [t.content for t in turns[1::2]] == ["fine"] * 6
    with cluster.client() as client:
        assert client.text(own(place)) == recorded(place)


def test_a_bang_line_names_context_and_place_and_can_be_left_out_of_the_transcript(sh: Shell, place: Path) -> None:
    good(sh("ssmprov pipe --no-record --save primed --max-tokens 0", "primer. "))
    good(sh("PIPE --bang '!primed greedy coder' --in USER --out OK", "one"))
    good(sh("PIPE --bang '!primed' --debang --in USER", "two"))
    first = turn(1, "USER", "one") + turn(2, "OK", "fine")
    assert recorded(place) == "primer. \n\n" + turn(1, "USER", "two")
    assert good(sh(f"ssmprov ckpt show {own(place)} --text")) == recorded(place)
    (kept,) = place.glob(".transcript.*.1.txt")  # what the second turn has left
    assert kept.read_text() == "primer. \n\n!primed greedy coder\n" + first
    assert good(sh("ssmprov ckpt show coder --text")) == "primer. \n\n" + first
    assert good(sh("ssmprov ckpt show primed --text")) == "primer. "


def test_save_and_load_are_commands_and_not_recorded(sh: Shell, place: Path) -> None:
    good(sh("PIPE --in USER", "one"))
    before = recorded(place)
    assert good(sh("PIPE", "/save kept")).startswith("[saved -> kept (")
    good(sh("PIPE --in USER", "two"))
    assert good(sh("PIPE", "/load kept\n")) == "[loaded <- kept]\n"
    assert good(sh(f"ssmprov ckpt show {own(place)} --text")) == recorded(place) == before
    for command in ("/load nowhere", "/t hot", "/save ../x"):
        done = sh("PIPE", command)
        assert (done.returncode != 0, done.stdout) == (True, b"")
    good(sh("PIPE --in USER", "three"))
    assert [(t.number, t.content) for t in turns_of(recorded(place))] == [(1, "one"), (2, "three")]
    (left,) = place.glob(".transcript.*.1.txt")
    assert [t.content for t in turns_of(left.read_text())] == ["one", "two"]


def test_the_counter_can_be_set(sh: Shell, place: Path) -> None:
    good(sh("PIPE --in USER --counter 41", "one"))
    assert counter(place) == "41"
    good(sh("PIPE --in USER", "two"))
    assert [t.number for t in turns_of(recorded(place))] == [1, 42]


def test_a_named_context_is_copied_to_and_from_the_directorys(sh: Shell, place: Path) -> None:
    good(sh("PIPE --in USER", "one"))
    good(sh("PIPE --in USER --save other --seed 1 --max-tokens 5", "two"))
    both = turn(1, "USER", "one") + turn(2, "USER", "two")
    good(sh("PIPE --in USER", "three"))
    assert recorded(place) == both + turn(3, "USER", "three")
    assert good(sh("ssmprov ckpt show other --text")) == both
    good(sh("PIPE --in USER --out OK --load other", "on"))
    assert recorded(place) == both + turn(3, "USER", "on") + turn(4, "OK", "fine")
    assert good(sh(f"ssmprov ckpt show {own(place)} --text")) == recorded(place)
    assert good(sh("ssmprov ckpt show other --text")) == both


def test_json_tells_the_numbers(sh: Shell) -> None:
    found = json.loads(good(sh("PIPE --in USER --out OK --json", "x")))
    assert (found["turn"], found["reply_turn"], found["text"], found["stop"]) == (1, 2, "fine" + FENCE, "fence")


def test_ssmprov_pipe_records_where_a_transcript_is(sh: Shell, place: Path) -> None:
    good(sh("ssmprov pipe --in USER", "not here"))
    assert list(place.iterdir()) == []
    (place / ".counter").write_text("7")
    good(sh("ssmprov pipe --in USER --out OK", "here"))
    assert recorded(place) == turn(8, "USER", "here") + turn(9, "OK", "fine")
    good(sh("ssmprov pipe --in USER --turn 3", "numbered by hand"))
    good(sh("ssmprov pipe --in USER --no-record", "not recorded"))
    assert counter(place) == "9"
    assert sh("ssmprov pipe --in USER --turn 3 --record", "both").returncode == 2


@pytest.mark.parametrize(
    ("line", "status", "says"),
    [
        ("PIPE --load other", 1, b"leave out --load"),
        ("PIPE --save other", 1, b"leave out --load"),
        ("PIPE --bang other", 1, b"leave out --load"),
        ("PIPE --create --port 1", 2, b"leave out --model"),
    ],
)
def test_a_command_does_not_ignore_an_option(sh: Shell, line: str, status: int, says: bytes) -> None:
    done = sh(line if "--port" not in line else f"{line} --in USER", "/save kept" if "--port" not in line else "x")
    assert (done.returncode, says in done.stderr) == (status, True)


def test_a_text_that_begins_with_a_slash_is_told_apart_from_a_command_of_the_ports(sh: Shell) -> None:
    assert (
        b"/etc/hosts does not exist: to send it as text, put a space before it"
        in sh("PIPE --in USER", "/etc/hosts is read").stderr
    )


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("slow")
    script = {"replies": [{"after": "[X]:", "pieces": [" word"] * 1000}], "token_delay_s": 0.02}
    made = Cluster(home, scripted_toml(home, script=script)).up()
    yield made
    made.close()


def begun(
    cluster: Cluster, place: Path, *words: str, stdout: int = subprocess.PIPE, text: str = "go on"
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [str(BIN / words[0]), *words[1:]],
        env=cluster.environment,
        cwd=place,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(text.encode())
    process.stdin.close()
    return process


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Exit status and what was said on standard error."""
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    return process.wait(30), said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_closes_the_turn_and_records_it(slow: Cluster, tmp_path: Path, number: signal.Signals) -> None:
    process = begun(slow, tmp_path, "PIPE", "--in", "USER", "--out", "X", "--stream")
    assert process.stdout is not None
    with process.stdout as stdout:
        said = stdout.read(10)
        process.send_signal(number)
        said += stdout.read()
    assert ended(process) == (130, b"")
    first, second = turns_of(recorded(tmp_path))
    assert (first.content, second.closed) == ("go on", True)
    assert said.decode() == second.content + FENCE
    with slow.client() as client:
        assert client.text(own(tmp_path)) == recorded(tmp_path)


def test_ctrl_c_twice_drops_the_turn_or_records_it(slow: Cluster, tmp_path: Path) -> None:
    process = begun(slow, tmp_path, "PIPE", "--in", "USER", "--out", "X", "--stream")
    assert process.stdout is not None
    with process.stdout as stdout:
        stdout.read(10)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)  # two of one kind at once may be delivered as one
        stdout.read()
    status, said = ended(process)
    assert (status, b"Traceback" in said) == (130, False)
    with slow.client() as client:
        made = [row.name for row in client.ls(model="talk").rows if row.name in own(tmp_path)]
        assert (client.text(own(tmp_path)) if made else "") == recorded(tmp_path)


def test_a_reader_who_leaves_ends_the_turn_which_is_recorded(slow: Cluster, tmp_path: Path) -> None:
    process = begun(slow, tmp_path, "PIPE", "--in", "USER", "--out", "X", "--stream")
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert ended(process) == (1, b"")
    assert [t.closed for t in turns_of(recorded(tmp_path))] == [True, True]
    with slow.client() as client:
        assert client.text(own(tmp_path)) == recorded(tmp_path)


def test_a_full_disk_behind_the_output_is_told_and_the_turn_recorded(sh: Shell, place: Path) -> None:
    done = sh("PIPE --in USER --out OK --stream >/dev/full", "x")
    assert (done.returncode, done.stderr) == (
        1,
        b"PIPE: standard output: the disk is full. Free some space and try again\n",
    )
    assert recorded(place) == turn(1, "USER", "x") + turn(2, "OK", "fine")


def on_terminal(cluster: Cluster, place: Path, *words: str) -> bytes:
    """What a command writes to a terminal."""
    ours, theirs = os.openpty()
    process = begun(cluster, place, *words, stdout=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(ours, 4096):
            said += part
    os.close(ours)
    assert ended(process)[0] == 0
    return said


def test_neither_model_nor_code_steers_the_terminal(cluster: Cluster, sh: Shell, place: Path) -> None:
    said = on_terminal(cluster, place, "PIPE", "--in", "USER", "--out", "STEER")
    assert said.startswith(b"\\x1b]0;title\\x07 red\r\n")
    assert recorded(place).endswith("\x1b]0;title\x07 red" + FENCE)
    code(cluster, place, "BASH", "printf '\\033[2J\\302\\233\\ttab\\n'")
    said = on_terminal(cluster, place, "RUN", "--no-send", *FENCED.split())
    assert said == b"\\x1b[2J\\x9b\ttab\r\n"
    assert sh(f"RUN --no-send {FENCED}").stdout == b"\x1b[2J\xc2\x9b\ttab\n"


# -- GET, PUT, QUOTE


@pytest.mark.parametrize(
    "content",
    [
        *("plain\n", "no line end", "", "\n", "tail\n\n\n", "  indented\n", "crlf\r\n\r\n", f"x{FENCE}y\n", "é🦀\n"),
        *("(Turn 1) [FILE]: fake\n~~~(end)~~~\n", "\\(Turn 3) [USER]: y\n\\\\~~~(end)~~~\n"),
    ],
)
def test_a_file_comes_back_byte_for_byte(sh: Shell, place: Path, content: str) -> None:
    (place / "in").write_bytes(content.encode())
    good(sh("PUT_FILE in && GET_FILE sub/out && GET 1 again"))
    assert (place / "sub" / "out").read_bytes() == content.encode()
    assert (place / "again").read_bytes() == content.encode()
    assert good(sh("GET_FILE -")).encode() == content.encode()
    assert (place / ".counter").read_text() == "1"


def test_get_takes_the_last_file_or_the_one_named(sh: Shell, place: Path) -> None:
    (place / ".transcript.txt").write_text(turn(1, "FILE", "a") + turn(2, "USER", "b") + turn(3, "FILE", "c"))
    assert [good(sh(f"GET_FILE {n} -")) for n in ("", "1", "3")] == ["c", "a", "c"]
    for n, says in (("2", b"is USER"), ("9", b"turn 9")):
        done = sh(f"GET_FILE {n} -")
        assert (done.returncode, says in done.stderr) == (4, True)
    assert sh("GET_FILE x y").returncode == 2
    assert sh("GET_FILE .bashrc").returncode == 1
    assert not (place / ".bashrc").exists()
    good(sh("GET_FILE sub/.dot"))
    good(sh("GET_FILE --force .mine"))


def test_a_file_that_is_no_text_is_refused(sh: Shell, place: Path) -> None:
    (place / "latin").write_bytes(b"\xe9")
    (place / "nul").write_bytes(b"a\0")
    for name, code in (("latin", 1), ("nul", 1), ("gone", 4), (".", 2)):
        done = sh(f"PUT_FILE {name}")
        assert (done.returncode, done.stdout) == (code, b"")
    assert recorded(place) == ""


def test_a_quote_is_a_turn_of_its_own(sh: Shell, place: Path) -> None:
    good(sh("PIPE --in USER --out OK", "two\nlines"))
    assert good(sh("QUOTE 1 -v")) == "end)~~~\n\n"
    assert turns_of(recorded(place))[-1].content == "> (Turn 1) [USER]:\n> two\n> lines"
    assert sh("QUOTE 77").returncode == 4


def test_odd_lines_are_told(sh: Shell, place: Path) -> None:
    good(sh("PIPE --in USER", "x"))
    assert good(sh("ssmprov transcript check")) == ""
    done = sh("ssmprov transcript check -", "(Turn 1) [A]: open")
    assert (done.returncode, done.stdout) == (1, b"line 1: turn 1 is open\n")
    found = json.loads(sh("ssmprov transcript check --json - ", turn(3, "A", "x")).stdout)
    assert found == {"turns": [{"turn": 3, "role": "A", "line": 1, "closed": True, "chars": 1}], "odd": []}


def test_a_file_is_not_written_through_a_link_out_of_the_directory(
    sh: Shell, place: Path, cluster: Cluster, tmp_path: Path
) -> None:
    code(cluster, place, "FILE", "new")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("old")
    (place / "file").symlink_to(outside / "file")
    (place / "folder").symlink_to(outside)
    (place / "inner").symlink_to("target")
    for name in ("file", "folder/file", "folder/new", "folder/../new"):
        done = sh(f"GET_FILE {name}")
        assert (done.returncode, b"outside the working directory: use --force" in done.stderr) == (1, True)
    assert [path.read_text() for path in outside.iterdir()] == ["old"]
    good(sh("GET_FILE inner && GET_FILE ../outside/named && GET_FILE --force file"))
    assert ((place / "target").read_text(), (outside / "named").read_text()) == ("new", "new")
    assert (outside / "file").read_text() == "new"


def test_a_pipe_is_put_and_what_has_no_end_is_refused(sh: Shell, place: Path) -> None:
    good(sh("PUT_FILE <(echo piped)"))
    assert [t.content for t in turns_of(recorded(place))] == ["piped\n"]
    done = sh("PUT_FILE /dev/zero")
    assert (done.returncode, b"more than 8 MiB" in done.stderr) == (1, True)
    (place / "long").write_bytes(turn(1, "A", "x" * (9 << 20)).encode())
    assert good(sh("ssmprov transcript check long")) == ""


# -- filters


def test_filters_run_in_a_pipeline_each_on_its_own_context(sh: Shell, place: Path, cluster: Cluster) -> None:
    for name in ("kind", "loud"):
        good(sh(f"ssmprov pipe --save {name} --max-tokens 0", turn(4, "CONTEXT", name)))
    made = sh("ssmprov filter make kind --out OK --dir bin; ssmprov filter make talk:loud --out LOUD --dir bin")
    assert good(made) == ""
    assert b"not on your PATH" in made.stderr
    assert good(sh("echo hi | bin/kind | bin/loud")) == "LOUD\n"
    with cluster.client() as client:
        assert client.text("talk:kind") == turn(4, "CONTEXT", "kind") + turn(5, "USER", "hi") + turn(6, "OK", "fine")
        assert client.text("talk:loud") == turn(4, "CONTEXT", "loud") + turn(5, "USER", "fine") + turn(
            6, "LOUD", "LOUD"
        )
    good(sh("echo again | bin/kind"))
    assert (cluster.home / ".filters").stat().st_mode & 0o777 == 0o700
    log = cluster.home / ".filters/talk/kind/.transcript.txt"
    assert [t.number for t in turns_of(log.read_text())] == [4, 5, 6, 7, 8]
    good(sh("ssmprov ckpt fork loud kind --overwrite; echo new | bin/kind"))  # its transcript follows
    with cluster.client() as client:
        assert log.read_text() == client.text("talk:kind")
    assert [t.content for t in turns_of(log.read_text())] == ["loud", "fine", "LOUD", "new", "fine"]
    assert recorded(place) == ""
    listed = json.loads(good(sh("ssmprov filter ls --dir bin --json")))
    assert [row["file"] for row in listed] == ["bin/kind", "bin/loud"]


def test_a_static_filter_leaves_its_context_as_it_is(sh: Shell, cluster: Cluster) -> None:
    good(sh("ssmprov pipe --save fixed --max-tokens 0", "primer "))
    good(sh("ssmprov filter make fixed --static --out OK --dir bin"))
    for _ in range(2):
        assert good(sh("echo hi | bin/fixed")) == "fine\n"
    with cluster.client() as client:
        assert client.text("talk:fixed") == "primer "


def test_a_filter_without_a_context_says_how_to_make_it(sh: Shell) -> None:
    good(sh("ssmprov filter make nobody --dir bin"))
    done = sh("echo hi | bin/nobody")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (4, b"", 1)
    assert b"ckpt fork OTHER nobody" in done.stderr


def test_a_filter_replaces_no_other_file(sh: Shell, place: Path) -> None:
    (place / "bin").mkdir()
    (place / "bin" / "mine").write_text("#!/bin/sh\necho mine\n")
    assert sh("ssmprov filter make mine --dir bin").returncode == 1
    good(sh("ssmprov filter make mine --dir bin --force && ssmprov filter make mine --static --dir bin"))
    assert good(sh("ssmprov filter ls --dir bin")).count("--static") == 1


# -- RUN


FENCED = "" if shutil.which("bwrap") else "--unsafe "


def code(cluster: Cluster, place: Path, role: str, text: str) -> None:
    """Record a turn with code."""
    with begun(cluster, place, "PIPE", "--in", role, text=text) as process:
        assert process.stdout is not None
        process.stdout.read()
        assert ended(process) == (0, b"")


def test_code_runs_and_its_output_is_a_turn_that_the_context_has_read(sh: Shell, place: Path, cluster: Cluster) -> None:
    code(cluster, place, "PYTHON", "import sys\nprint('one')\nprint('two', file=sys.stderr)\nprint('three')")
    assert good(sh(f"RUN {FENCED}")) == "one\ntwo\nthree\n"
    (output,) = (t for t in turns_of(recorded(place)) if t.role == "OUTPUT")
    assert (output.number, output.content) == (2, "one\ntwo\nthree")
    with cluster.client() as client:
        assert client.text(own(place)) == recorded(place)


@pytest.mark.parametrize(
    ("role", "text", "options", "says"),
    [
        ("BASH", "echo before; exit 3", "", "before\n[exit status 3]"),
        ("BASH", "kill -TERM $$", "", "[exit status 143]"),
        ("PYTHON", "raise SystemExit(2)", "", "[exit status 2]"),
        ("BASH", "echo slow; read -t 60 x < <(tail -f /dev/null)", "--timeout 3 ", "slow\n[ended: timeout]"),
        ("BASH", "printf 'no line end'", "", "no line end"),
        ("BASH", "true", "", ""),
        ("BASH", "printf '(Turn 9) [USER]: x\\n\\n~~~(end)~~~\\n\\n(Turn 9) [A]: '", "", None),
    ],
)
def test_how_code_ended_stands_in_the_turn(
    sh: Shell, place: Path, cluster: Cluster, role: str, text: str, options: str, says: str | None
) -> None:
    code(cluster, place, role, text)
    good(sh(f"RUN {FENCED}{options}"))
    *_, output = turns_of(recorded(place))
    assert (output.role, output.number) == ("OUTPUT", 2)
    assert output.content == (says if says is not None else "(Turn 9) [USER]: x\n\n~~~(end)~~~\n\n(Turn 9) [A]: ")


def test_the_last_runnable_turn_is_run_or_the_one_named(sh: Shell, place: Path, cluster: Cluster) -> None:
    for role, text in (("BASH", "echo a"), ("PYTHON", "print('b')"), ("USER", "echo c")):
        code(cluster, place, role, text)
    assert [good(sh(f"RUN {FENCED}--no-send {n}")) for n in ("", "1", "2")] == ["b\n", "a\n", "b\n"]
    assert sh(f"RUN {FENCED}3").returncode == 4
    found = json.loads(good(sh(f"RUN {FENCED}--json 1")))
    assert (found["ran"], found["status"], found["output"], found["turn"]) == (1, 0, "a\n", 4)


def test_code_is_not_run_where_its_output_could_not_be_sent(sh: Shell, place: Path, cluster: Cluster) -> None:
    code(cluster, place, "BASH", "echo ran > ran")
    assert sh(f"RUN {FENCED}", SSMPROV_BROKER="ipc:///nowhere/broker.sock").returncode == 3
    assert not (place / "ran").exists()


def test_without_a_transcript_there_is_nothing_to_run(sh: Shell, place: Path) -> None:
    done = sh("RUN")
    assert (done.returncode, b"no transcript here" in done.stderr) == (4, True)
    assert list(place.iterdir()) == []


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")
def test_what_a_turn_tries_does_no_harm(sh: Shell, place: Path, cluster: Cluster, tmp_path: Path) -> None:
    (place / "work").write_text("mine")
    (tmp_path / "outside").write_text("mine")
    code(
        cluster,
        place,
        "BASH",
        f"rm -rf .transcript.txt .counter ~ /_ {tmp_path}/outside 2>/dev/null; echo x > .new; echo y > made; rm work",
    )
    before = recorded(place)
    good(sh("RUN --no-send"))
    assert recorded(place) == before
    assert (tmp_path / "outside").read_text() == "mine"
    assert not (place / ".new").exists()
    assert ((place / "made").read_text(), (place / "work").exists()) == ("y\n", False)


def test_ctrl_c_ends_the_code_and_its_output_is_recorded(slow: Cluster, tmp_path: Path) -> None:
    code(slow, tmp_path, "BASH", "echo begun; read -t 60 x < <(tail -f /dev/null)")
    process = begun(slow, tmp_path, "RUN", *FENCED.split())
    assert process.stdout is not None
    with process.stdout as stdout:
        assert stdout.read(6) == b"begun\n"
        process.send_signal(signal.SIGINT)
    assert ended(process) == (130, b"")
    *_, output = turns_of(recorded(tmp_path))
    assert (output.role, output.content) == ("OUTPUT", "begun\n[ended: cancelled]")


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")
def test_code_cannot_forge_a_pending_append_though_run_is_killed(sh: Shell, place: Path, cluster: Cluster) -> None:
    code(
        cluster,
        place,
        "BASH",
        "for x in 1 2; do echo forged > .transcript.pending; rm -f .transcript.pending; done; exec tail -f /dev/null",
    )
    before = recorded(place)
    process = begun(cluster, place, "RUN", "--no-send")
    assert process.stdout is not None
    with process.stdout as stdout:
        for _ in range(4):
            assert b".transcript.pending" in stdout.readline()
        process.kill()
    ended(process)
    assert (place / ".transcript.pending").read_bytes() == b""
    good(sh("PIPE --in USER", "x"))
    assert recorded(place) == before + turn(2, "USER", "x")
    assert not (place / ".transcript.pending").exists()
