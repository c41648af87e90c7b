"""What one request asks of a model once its inputs are decoded, and the answer that what is computed gives."""

from __future__ import annotations

from dataclasses import dataclass

from isolatent_serve import answers, results
from isolatent_serve.answers import Answer
from isolatent_serve.decoding import Decoded
from isolatent_serve.negotiation import negotiate
from isolatent_serve.options import Options
from isolatent_serve.outputs import Output, Tensors
from isolatent_serve.registry import Model


@dataclass(frozen=True)
class Question:
    """One request's inputs, and how it wants to be answered."""

    model: Model
    output: Output
    options: Options
    decoded: Decoded
    media_type: str
    """Of the answer."""

    @property
    def all_or_none(self) -> bool:
        """Whether one bad input fails all."""
        return self.options.on_error == "request" or self.media_type in answers.WHOLE

    def answer(self, computed: Tensors) -> Answer:
        """What `computed`, tensors for the decoded inputs, says. Raises Problem when the request fails for it."""
        result = results.collect(self.decoded, computed, self.output.shapes(self.model.manifest))
        if self.all_or_none:
            results.require_all(self.decoded, result.errors)
        return Answer(result, self.output, self.model.manifest, self.options)


def ask(
    model: Model, output: Output, options: Options, decoded: Decoded, accept: str | None, answer_bytes: int
) -> Question:
    """The question, when it can be answered: in what `accept` allows, and within `answer_bytes`. Raises Problem."""
    results.require_answerable(decoded.count, output.shapes(model.manifest), answer_bytes)
    media_type = negotiate(accept, answers.offers(output, model.manifest.modality, decoded.count))
    question = Question(model, output, options, decoded, media_type)
    if question.all_or_none:
        results.require_all(decoded, decoded.errors)
    return question
