"""Prompts: templates, their sandbox, and what may enter them.

Knows: templates, what a task declares of them, label and word checks, token budgets. Refuses to know: tasks, images,
LLMs and answers. jinja2 is imported when the first template is loaded.
"""

from icl_vision.prompting.budget import PromptSize, check_fits, check_tokens
from icl_vision.prompting.declarations import Declaration, Sample, Twin
from icl_vision.prompting.labels import MAX_LABEL_CHARS, check_label, check_labels, check_line, check_words, fold
from icl_vision.prompting.templates import (
    FixedPart,
    PromptTemplate,
    TemplateInfo,
    find_template,
    list_templates,
    load_template,
    render_fixed,
    template_faults,
    template_hashes,
)

__all__ = [
    "MAX_LABEL_CHARS",
    "Declaration",
    "FixedPart",
    "PromptSize",
    "PromptTemplate",
    "Sample",
    "TemplateInfo",
    "Twin",
    "check_fits",
    "check_label",
    "check_labels",
    "check_line",
    "check_tokens",
    "check_words",
    "find_template",
    "fold",
    "list_templates",
    "load_template",
    "render_fixed",
    "template_faults",
    "template_hashes",
]
