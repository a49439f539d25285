"""Prompts: labelled words and a template become what an LLM is asked.

Knows: templates and their sandbox, example order, label checks, token budgets.
Refuses to know: images, LLMs and answers. jinja2 is imported when the first template is loaded.
"""

from icl_vision.prompting.budget import PromptSize, check_fits, check_tokens
from icl_vision.prompting.builder import Example, PreparedPrompt, PromptBuilder, order_examples
from icl_vision.prompting.labels import MAX_LABEL_CHARS, check_label, check_labels, check_words, fold
from icl_vision.prompting.segment_prompts import (
    PreparedSegment,
    SegmentExample,
    SegmentPlace,
    SegmentPromptBuilder,
)
from icl_vision.prompting.templates import (
    PromptTemplate,
    TemplateInfo,
    find_template,
    list_templates,
    load_template,
    template_faults,
    template_hashes,
)

__all__ = [
    "MAX_LABEL_CHARS",
    "Example",
    "PreparedPrompt",
    "PreparedSegment",
    "PromptBuilder",
    "PromptSize",
    "PromptTemplate",
    "SegmentExample",
    "SegmentPlace",
    "SegmentPromptBuilder",
    "TemplateInfo",
    "check_fits",
    "check_label",
    "check_labels",
    "check_tokens",
    "check_words",
    "find_template",
    "fold",
    "list_templates",
    "load_template",
    "order_examples",
    "template_faults",
    "template_hashes",
]
