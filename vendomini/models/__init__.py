"""What a model's folder says of it, and what its settings may not ask of it. Loads no model.

A file calls those below it, never one above:

    from_gguf     a command: the folder of a model in one file
    lookup        a model's sizes by its name: from its folder, the catalogue or the name's size
    checks        what a phase may not ask of a model whose folder is here
    catalogue     the models that are known without their files
    config_json   a config.json to a `ModelSpec`: checked, counted, its cache, its weight
    params        all parameters, counted layer by layer
    layers        a config.json to its `Layer`s
    families      what the code of a kind of model does and its config.json does not say
    quantization  what fewer bits make of a model's weight
    folder        where the files are, whether they are all there, what the small ones say
    gguf          a model in one file: refused with what makes it a folder
    fields        one fact of a config.json by any of its names
    naming        what a name says: size, storage, whose variant it is
    support       what vLLM and transformers have code for, and their defaults
    spec          the values: `ModelSpec` and what it is made of
"""

from vendomini.models.folder import ModelFacts, ModelIncomplete, find_folder, read_model

__all__ = ["ModelFacts", "ModelIncomplete", "find_folder", "read_model"]
