"""From config nodes to parts: a node's `_target_` names a dataclass, its other keys are that class's fields."""

import dataclasses
import pkgutil
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from unlearn.pipeline.config import plain
from unlearn.store.code import source_of
from unlearn.values.errors import UserError, first_line


def build(node: Any, key: str) -> Any:
    """Make the part that a config node describes, with the types of its fields checked.

    Args:
        node: a config node with `_target_`.
        key: where it stands in the config, for messages.

    Returns:
        An instance of the target.

    Raises:
        UserError: there is no such class, or a field is unknown, missing or of another type.
    """
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise UserError(f"{key}: names no _target_; choose one of the group's files, such as {key}=NAME")
    try:
        target = pkgutil.resolve_name(node._target_)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"{key}._target_={node._target_}: cannot be imported ({error})") from error
    if not (isinstance(target, type) and dataclasses.is_dataclass(target)):
        raise UserError(f"{key}._target_={node._target_}: is not a dataclass of settings")
    source_of(target)  # as it is now that it is loaded; the file may change while a run lasts
    resolved = plain(node)
    settings = {name: value for name, value in resolved.items() if name != "_target_"}
    try:
        schema = OmegaConf.structured(target)
        OmegaConf.set_readonly(schema, False)
        checked = OmegaConf.merge(schema, settings)
        return OmegaConf.to_object(checked)
    except ConfigKeyError as error:
        fields = ", ".join(f.name for f in dataclasses.fields(target))
        raise UserError(f"{key}.{error.key}: {target.__name__} has no such setting; it has {fields}") from error
    except MissingMandatoryValue as error:
        raise UserError(f"{key}.{error.key}: is not set; {target.__name__} needs it") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{key}.{error.full_key}: {first_line(error)}") from error
