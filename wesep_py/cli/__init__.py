"""The commands of `wesep`: one thin file each. Nothing else imports this package."""

from wesep_py.common.search_path import leave_out_current_folder

leave_out_current_folder()
