"""What `conf/` asks for beside Hydra's own; DVC imports the modules of this folder before it composes."""

from components.shared.params.derived import register

register()
