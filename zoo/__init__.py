"""The teachers that ship, and the pipeline that trained them (`zoo/dvc.yaml`): dataset, extractor, reference,
tokenizer, teacher. Bring your own images by adding a data set to `zoo/params.yaml`."""
