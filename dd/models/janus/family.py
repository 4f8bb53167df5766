"""Janus, for the registry."""

from dd.models.family import Family, Part
from dd.models.janus.student import JanusStudent, JanusStudentConfig
from dd.models.janus.teacher import JanusTeacher
from dd.models.janus.tokenizer import JanusTokenizer, JanusVQConfig
from dd.models.janus.transformer import JanusConfig, Transformer

FAMILY = Family(
    name="janus",
    tokenizer=Part(JanusVQConfig, JanusTokenizer),
    transformer=Part(JanusConfig, Transformer),
    student=Part(JanusStudentConfig, JanusStudent),
    teacher=JanusTeacher,
    depth="n_layer",
    from_tokenizer=lambda tokenizer: {"codebook_dim": tokenizer.codebook.shape[1]},
    second_step=1 / 3,
    unit_codes=True,
)
