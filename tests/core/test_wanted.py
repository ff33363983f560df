"""The public interface says in one sentence what it wants."""

from __future__ import annotations

from typing import Any

import pytest

import letheon as lt
from letheon.core.errors import DataError, LetheonError, MethodError, RunError, SubjectError
from letheon.testing.toys import toy_data, toy_subject

SUBJECT, DATA, RUN = toy_subject(), toy_data(), lt.Run(device="cpu")
PROBE = lt.method("perplexity")


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda: lt.method("npo").apply(SUBJECT.module, DATA, RUN), SubjectError, "`apply` of `npo` wants a subject, got LlamaFor.*lt.subject"),
        (lambda: lt.method("npo").apply("path", DATA, RUN), SubjectError, r"got str\. .*`lt.subject\(path\)`"),
        (lambda: lt.method("npo").apply(None, DATA, RUN), SubjectError, "got nothing"),
        (lambda: lt.method("npo").apply(SUBJECT, DATA, None), RunError, r"wants a run, got nothing\. Make one with `lt.Run\(\)`"),
        (lambda: lt.method("npo").apply(SUBJECT, data=[{"answer": "Ann"}], run=RUN), DataError, "wants data, got list.*lt.Data"),
        (lambda: lt.method("micro").build({}, RUN), DataError, "`build` of `micro` wants data, got dict"),
        (lambda: lt.method("random").curate(DATA, 3), RunError, "`curate` of `random` wants a run, got int"),
        (lambda: lt.method("random").curate(DATA, RUN, SUBJECT.module), SubjectError, "wants a subject"),
        (lambda: PROBE.measure(SUBJECT, DATA, RUN), MethodError, "wants the readings of a subject, got Subject.*lt.audit"),
        (lambda: lt.audit("perplexity", SUBJECT.module, DATA, RUN), SubjectError, "`lt.audit` wants a subject, got Llama"),
        (lambda: lt.audit("perplexity", SUBJECT, DATA, RUN, retrained="path"), SubjectError, "`lt.audit` wants a subject, got str"),
        (lambda: lt.audit(PROBE, SUBJECT, DATA, None), RunError, "`lt.audit` wants a run"),
        (lambda: lt.audit(lt.method("npo"), SUBJECT, DATA, RUN), MethodError, "wants an audit or its name, got `npo`"),
        (lambda: lt.audit(5, SUBJECT, DATA, RUN), MethodError, "wants an audit or its name, got int"),
        (lambda: lt.method(5), MethodError, r"Names of methods are text, got int\. `lt.methods\(\)`"),
        (lambda: lt.data(None), MethodError, "Names of sources are text, got nothing"),
        (lambda: lt.methods(5), MethodError, "Names of roles are text, got int"),
        (lambda: lt.report({}), DataError, "wants findings or the path of a `findings.json`, got dict"),
        (lambda: lt.report(None), DataError, "got nothing"),
        (lambda: lt.subject(5), SubjectError, "got int"),
    ],
)  # fmt: skip
def test_what_is_wanted_is_said(call, kind, says):
    with pytest.raises(kind, match=says) as caught:
        call()
    assert isinstance(caught.value, LetheonError) and caught.value.hint


def test_what_may_be_left_out_may_be_left_out():
    chosen: Any = lt.method("random", fraction=0.5).curate(DATA, RUN, None)
    assert 0 < len(chosen["forget"]) < len(DATA["forget"])
    assert lt.audit(PROBE, SUBJECT, DATA, RUN, before=None).models["after"]
