"""The teachers that ship, and the pipeline that trained them (`zoo/shipped/dvc.yaml`).

Its stages: dataset, extractor, reference, tokenizer, teacher. Your own images: `zoo/dvc.yaml`, `dd-cli images`.
"""

from dd.system.signals import brief_interrupts

brief_interrupts()
