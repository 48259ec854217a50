"""A sample of the suite of JSON schemas; `make test-structured` asks for all of it."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "structured"))
import suite  # noqa: E402

SAMPLE = 12  # every so many-th schema


def test_the_suite_is_large():
    assert len(suite.cases()) >= 150
    assert len({case.name for case in suite.cases()}) == len(suite.cases())


def test_the_judge_can_find_faults():
    (date,) = [case for case in suite.cases() if case.name == "calendar: leap day"]
    assert not suite.fault_of(date, '{"day": "2024-02-29"}')
    for text in ['{"day": "2023-02-29"}', '{"day": "2024-02-28"}', "{}", '{"day"', "[NaN]"]:
        assert suite.fault_of(date, text)


@pytest.mark.parametrize("sampling", suite.SAMPLINGS, ids=lambda sampling: sampling.name)
def test_answers_match_their_schemas(http, sampling):
    cases = suite.cases()[::SAMPLE]
    outcomes = suite.ask_all(http, cases, [sampling], streams=16)
    assert not [outcome.label for outcome in outcomes if outcome.fault]
    answered = [outcome for outcome in outcomes if outcome.status == 200]
    stopped = [outcome for outcome in answered if outcome.finish_reason == "stop"]
    assert len(stopped) >= 0.8 * len(cases)


def test_invalid_schemas_are_refused_at_their_place(http):
    outcomes = suite.ask_all(http, suite.invalid_cases(), suite.SAMPLINGS[:1], streams=16)
    assert not [fault for fault in map(suite.refusal_fault, outcomes) if fault]
