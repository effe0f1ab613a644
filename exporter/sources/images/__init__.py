"""How images become the inputs of networks whose files others have written: as somebody says, or as the files do."""

from contract.lazy import public

__all__, __getattr__ = public(__name__, {"found": ["find_preprocessing", "stated"], "said": ["Said", "Spoken", "read_said"]})
